"""How the command line writes DICOM SEG and SR, and reads a SEG."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from NLSTSegLib.cli.inputs import Case, load_case
from NLSTSegLib.cli.show import show_place
from NLSTSegLib.dicom.codes import SegType
from NLSTSegLib.dicom.lesions import read_lesions
from NLSTSegLib.dicom.quiet import check_installed
from NLSTSegLib.dicom.read_seg import read_seg
from NLSTSegLib.dicom.source import SourceImages, read_source, source_of
from NLSTSegLib.dicom.sr import read_numbers
from NLSTSegLib.dicom.write import IDENTITY_NOTICE, write_dicom
from NLSTSegLib.disk.atomic_file import atomic_file
from NLSTSegLib.errors import InputError, printable
from NLSTSegLib.phantom.dicom_series import write_dicom_series
from NLSTSegLib.reading.dicom_folder import list_series
from NLSTSegLib.reading.dicom_series import DicomSeries, read_series
from NLSTSegLib.reading.write import write_image
from NLSTSegLib.volume.ct import CtVolume


def write_dicom_of(
    result: Path, path: Path, series_uid: str | None, seg_type: SegType, reader: str, *, skip_unreadable: bool, force: bool
) -> None:
    """``nlstseg dicom``: SEG and SR of a result or an exported review into its folder."""
    if not result.is_dir():
        raise InputError(f"there is no folder {result}; name that of a result or of an exported review")
    ct, series = load_case(Case(path, ""), series_uid, skip_unreadable)
    source = told_source(path, series)
    for written in write_dicom(result, source, read_lesions(result, ct), seg_type, reader, force=force):
        show_place(written)


def write_labels_of(seg: Path, path: Path, series_uid: str | None, output: Path, *, skip_unreadable: bool, force: bool) -> None:
    """``nlstseg labels``: the segments of a SEG as a label map on the voxels of its CT."""
    if not output.name.endswith((".nrrd", ".nii.gz")):
        raise InputError(f"'{output}' is neither .nrrd nor .nii.gz; name the label map so")
    if output.exists() and not force:
        raise InputError(f"'{output}' is there already; add --force to replace it")
    ct, series = load_case(Case(path, ""), series_uid, skip_unreadable)
    if series is None:
        raise InputError(f"'{path}' is not DICOM, and a SEG belongs to DICOM images; give the CT as DICOM")
    read = read_seg(seg, series)
    for note in read.notes:
        print(f"note: {note}", file=sys.stderr)
    with atomic_file(output) as partial:
        write_image(ct.image_like(read.labels), partial)
    for label, segment in enumerate(read.segments, start=1):
        print(printable(f"{label}: {segment.name}"))
    show_place(output)


def dicom_round_trip(ct: CtVolume, dicom_folder: Path, result: Path) -> str:
    """Write ``ct`` as DICOM, and SEG and SR of its result; read both back. A sentence on that.

    Raises ``RuntimeError`` where what is read is not what is in the result.
    """
    try:
        check_installed()
    except InputError as error:
        return f"no DICOM SEG and SR: {error}"
    write_dicom_series(ct, dicom_folder)
    (series,) = list_series(dicom_folder)
    found = read_lesions(result, read_series(series))
    paths = write_dicom(result, read_source(series), found)
    if found.lesions and not np.array_equal(read_seg(paths[0], series).labels, found.labels):
        raise RuntimeError("the SEG read back differs from labels.nrrd")
    if read_numbers(paths[-1]) != [dict(lesion.numbers) for lesion in found.lesions]:
        raise RuntimeError("the SR read back differs from lesions.csv")
    return f"{' and '.join(path.name for path in paths)}: read back, every voxel and number equal"


def told_source(path: Path, series: DicomSeries | None) -> SourceImages:
    """:func:`source_of`; says on stderr what was mended, and that the files carry identity."""
    source = source_of(series, f"'{path}'")
    print(f"note: {IDENTITY_NOTICE}", file=sys.stderr)
    for note in source.notes:
        print(f"note: in the CT's headers {note}", file=sys.stderr)
    return source
