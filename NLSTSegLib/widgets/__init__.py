"""The panels of the Slicer module: Qt alone; what they decide lies in the library and is tested without Qt."""
