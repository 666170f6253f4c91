"""The numbers of lesions as a DICOM structured report (SR): Enhanced SR, TID 1500, one TID 1411 group a lesion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from NLSTSegLib import __version__
from NLSTSegLib.dicom.codes import (
    ABNORMAL_STRUCTURE,
    ARTIFICIAL_INTELLIGENCE,
    CT_UNSPECIFIED_REGION,
    DEVICE,
    IMAGING_MEASUREMENTS,
    LUNG,
    MEASUREMENTS,
    NO_UNITS,
    NODULE,
    NUMBER_OF_LESIONS,
    OWN_SCHEME,
    PERSON,
    SIDES,
    CodeText,
)
from NLSTSegLib.dicom.lesions import FoundLesion, FoundLesions
from NLSTSegLib.dicom.quiet import quiet_dicom
from NLSTSegLib.dicom.seg import MANUFACTURER, SERIES_NUMBER, algorithm_parameters, series_description, tracking_uid
from NLSTSegLib.dicom.source import CHARACTER_SET, SourceImages, derived_uid

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from highdicom.sr import CodedConcept, EnhancedSR
    from pydicom import Dataset


def make_sr(source: SourceImages, found: FoundLesions, seg: Segmentation | None, reader: str = "") -> EnhancedSR:
    """The SR of ``found``; ``seg`` is its SEG, ``None`` where there is no lesion: then the SR says just that.

    ``reader`` is who reviewed the lesions: observer beside the program. The report is complete, preliminary and not verified.
    """
    import highdicom
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    with quiet_dicom():
        if seg is None:
            groups: list[Any] = [_no_lesion(source, found)]
        else:
            groups = [_group(number, lesion, source, seg) for number, lesion in enumerate(found.lesions, start=1)]
        report = highdicom.sr.MeasurementReport(
            observation_context=_observers(found, reader),
            procedure_reported=_code(CT_UNSPECIFIED_REGION),
            imaging_measurements=groups,
        )
        sr = highdicom.sr.EnhancedSR(
            # highdicom takes the equipment of the first for that of the acquisition, and our images have none.
            evidence=[*source.images, *([] if seg is None else [seg])],
            content=report[0],
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name="NLSTSeg",
            software_versions=__version__,
            device_serial_number=found.weights_sha256 or "none",
            series_description=series_description(found.model, is_review=found.is_review),
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    designator=OWN_SCHEME, name="NLSTSeg's own codes", responsible_organization=MANUFACTURER
                )
            ],
            is_complete=True,
        )
        sr.SpecificCharacterSet = CHARACTER_SET
    return sr


def _code(text: CodeText) -> CodedConcept:
    from highdicom.sr import CodedConcept

    return CodedConcept(*text)


def _observers(found: FoundLesions, reader: str) -> Any:
    from highdicom import sr

    device = sr.ObserverContext(
        observer_type=_code(DEVICE),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("NLSTSeg", __version__, found.weights_sha256),
            name="NLSTSeg",
            manufacturer_name=MANUFACTURER,
            model_name=" ".join(found.model),
        ),
    )
    if not reader:
        return sr.ObservationContext(observer_device_context=device)
    person = sr.ObserverContext(
        observer_type=_code(PERSON), observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name=reader)
    )
    return sr.ObservationContext(observer_person_context=person, observer_device_context=device)


def _group(number: int, lesion: FoundLesion, source: SourceImages, seg: Segmentation) -> Any:
    from highdicom import sr

    algorithm = None
    if lesion.algorithm_type != "MANUAL":
        algorithm = sr.AlgorithmIdentification(
            name=lesion.model[0],
            version=lesion.model[1],
            parameters=[algorithm_parameters(lesion)],
            family=_code(ARTIFICIAL_INTELLIGENCE),
            manufacturer=MANUFACTURER,
        )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=tracking_uid(source, lesion), identifier=lesion.name),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(source.series_uid),
        ),
        finding_category=_code(ABNORMAL_STRUCTURE),
        finding_type=_code(NODULE),
        finding_sites=[
            sr.FindingSite(anatomic_location=_code(LUNG), laterality=_code(SIDES[lesion.side]) if lesion.side in SIDES else None)
        ],
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(
                name=_code(one.name),
                value=lesion.numbers[one.column],
                unit=_code(one.unit),
                derivation=_code(one.derivation) if one.derivation else None,
            )
            for one in MEASUREMENTS
            if one.column in lesion.numbers
        ],
    )


def _no_lesion(source: SourceImages, found: FoundLesions) -> Any:
    from highdicom import sr

    uid = derived_uid(source.series_uid, found.weights_sha256, "no lesion")
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier="Lesions of the CT"),
        finding_sites=[sr.FindingSite(anatomic_location=_code(LUNG))],
        measurements=[sr.Measurement(name=_code(NUMBER_OF_LESIONS), value=0, unit=_code(NO_UNITS))],
    )


def read_numbers(file: Path) -> list[dict[str, float]]:
    """The numbers of every lesion of one of our SRs by column of ``lesions.csv``; for no lesion nothing."""
    import pydicom

    columns = {one.name[:2]: one.column for one in MEASUREMENTS}
    with quiet_dicom():
        (groups,) = [item for item in pydicom.dcmread(file).ContentSequence if _name(item) == IMAGING_MEASUREMENTS]
        numbers = [
            {
                columns[_name(item)]: float(item.MeasuredValueSequence[0].NumericValue)
                for item in group.ContentSequence
                if item.ValueType == "NUM" and _name(item) in columns
            }
            for group in groups.ContentSequence
        ]
    return [one for one in numbers if one]


def _name(item: Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return str(code.CodeValue), str(code.CodingSchemeDesignator)
