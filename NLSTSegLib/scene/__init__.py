"""MRML in and out: from volume nodes to CTs and from results to segmentation nodes, with or without the application."""
