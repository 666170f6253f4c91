"""Lesions as DICOM SEG and SR objects, written and read: highdicom and pydicom inside functions."""
