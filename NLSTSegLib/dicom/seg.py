"""Lesions as a DICOM segmentation (SEG): one segment a lesion, on the slices of the CT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NLSTSegLib import __version__
from NLSTSegLib.dicom.codes import ABNORMAL_STRUCTURE, ARTIFICIAL_INTELLIGENCE, LUNG, NODULE, SIDES, SegType
from NLSTSegLib.dicom.lesions import FoundLesion, FoundLesions
from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.dicom.source import CHARACTER_SET, SourceImages, derived_uid
from NLSTSegLib.lesions.coding import segment_color

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

MANUFACTURER = "NLSTSeg project"

SERIES_NUMBER = 901
"""SeriesNumber of the SEG; the SR has the next one."""


def series_description(model: tuple[str, str], *, is_review: bool) -> str:
    """SeriesDescription of SEG and SR: tells name and version of ``model``, 64 characters at most.

    It must not begin with ``NLSTSeg``: queries for the data set of that name would take it for theirs.
    """
    reviewed = ", reviewed" if is_review else ""
    return f"Lung lesions{reviewed} ({' '.join(model)})"[:64]


def tracking_uid(source: SourceImages, lesion: FoundLesion) -> str:
    """The same in SEG and SR, and in every export of the same finding."""
    return lesion.key if lesion.has_uid else derived_uid(source.series_uid, lesion.key)


def algorithm_parameters(lesion: FoundLesion) -> str:
    """One text, since dcmqi's reader keeps only the first parameter."""
    threshold = "" if lesion.threshold is None else f"threshold {lesion.threshold:g}, "
    return f"{threshold}weights sha256 {lesion.weights_sha256}"


def make_seg(source: SourceImages, found: FoundLesions, seg_type: SegType) -> Segmentation:
    """The SEG of ``found``, which has one lesion at least; empty frames are left out."""
    import highdicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    with quiet_dicom():
        seg = highdicom.seg.Segmentation(
            source_images=list(source.images),
            pixel_array=source.in_order(found.labels),
            segmentation_type="LABELMAP" if seg_type == SegType.LABELMAP else "BINARY",
            segment_descriptions=[_segment(n, lesion, source) for n, lesion in enumerate(found.lesions, start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name="NLSTSeg",
            software_versions=__version__,
            device_serial_number=found.weights_sha256 or "none",
            content_label="LESIONS",
            content_description="Lung lesions. Research only; not for clinical use.",
            series_description=series_description(found.model, is_review=found.is_review),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        # highdicom before 0.28 does not take it over from the source.
        seg.SpecificCharacterSet = CHARACTER_SET
        # highdicom leaves it out where positions are rounded; readers then take the thickness for the distance.
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SpacingBetweenSlices = f"{source.step_mm:.10g}"
        if seg_type == SegType.DEFLATED:
            seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return seg


def _segment(number: int, lesion: FoundLesion, source: SourceImages) -> SegmentDescription:
    import highdicom
    from pydicom.sr.coding import Code

    algorithm = None
    if lesion.algorithm_type != "MANUAL":
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=lesion.model[0],
            version=lesion.model[1],
            family=Code(*ARTIFICIAL_INTELLIGENCE),
            source=MANUFACTURER,
            parameters={"parameters": algorithm_parameters(lesion)},
        )
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=lesion.name[:64],
        segmented_property_category=Code(*ABNORMAL_STRUCTURE),
        segmented_property_type=Code(*NODULE),
        algorithm_type=lesion.algorithm_type,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(source, lesion),
        tracking_id=lesion.name,
        anatomic_regions=[Code(*LUNG)],
        display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * part) for part in segment_color(number))),
    )
    if lesion.side in SIDES:
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [highdicom.sr.CodedConcept(*SIDES[lesion.side])]
    if "score" in lesion.numbers:
        segment.SegmentDescription = f"score {lesion.numbers['score']:.3f}"
    return segment
