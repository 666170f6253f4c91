"""PACS: studies found, pulled and pushed over DIMSE and DICOMweb; the one room that opens connections."""
