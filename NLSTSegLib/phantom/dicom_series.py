"""The phantom CT as a DICOM series, one file a slice, as scanners write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from NLSTSegLib.volume.ct import CtVolume

SERIES_FILES = tuple(f"{n:03d}.dcm" for n in range(1, 1000))
"""Names of the slices, as many as there are."""


def write_dicom_series(ct: CtVolume, folder: Path) -> None:
    """Write the int16 ``ct``, whose k runs along i x j, into ``folder``, which is made; the patient is "Phantom^Chest"."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
    from pydicom.valuerep import format_number_as_ds

    i, j, k = ct.direction_matrix.T
    if ct.hu.dtype != np.int16 or len(ct.hu) > len(SERIES_FILES) or not np.allclose(np.cross(i, j), k):
        raise ValueError(
            f"only int16 voxels on right-handed axes and up to {len(SERIES_FILES)} slices are written as a DICOM series"
        )
    folder.mkdir(parents=True)
    shared = {
        **{"SOPClassUID": CTImageStorage, "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        **{"PatientName": "Phantom^Chest", "PatientID": "phantom", "PatientBirthDate": "", "PatientSex": "O"},
        **{"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid()},
        **{"StudyDate": "20260101", "StudyTime": "120000", "StudyID": "1", "AccessionNumber": "", "ReferringPhysicianName": ""},
        **{"SeriesNumber": 1, "SeriesDescription": "Phantom, no patient", "Manufacturer": "NLSTSeg project"},
        **{"PositionReferenceIndicator": "", "Rows": ct.hu.shape[1], "Columns": ct.hu.shape[2]},
        **{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 1},
        **{"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"},
        **{"KVP": "", "AcquisitionNumber": 1, "SliceThickness": format_number_as_ds(float(ct.spacing_ijk_mm[2]))},
        "PixelSpacing": [format_number_as_ds(float(step)) for step in ct.spacing_ijk_mm[1::-1]],
        "ImageOrientationPatient": [format_number_as_ds(float(part)) for part in (*i, *j)],
    }
    for n, pixels in enumerate(ct.hu):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        image = pydicom.Dataset()
        image.file_meta = meta
        for keyword, value in shared.items():
            setattr(image, keyword, value)
        image.SOPInstanceUID, image.InstanceNumber = meta.MediaStorageSOPInstanceUID, n + 1
        position_mm = ct.lps_from_ijk_mm(np.array([0, 0, n]))
        image.ImagePositionPatient = [format_number_as_ds(float(part)) for part in position_mm]
        image.PixelData = pixels.astype("<i2").tobytes()
        image.save_as(folder / SERIES_FILES[n], enforce_file_format=True)
