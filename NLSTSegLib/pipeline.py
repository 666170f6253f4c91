"""The whole way of the data: from a CT to lesions on its voxels. Everything that segments calls :func:`segment`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.checks.holes import check_holes
from NLSTSegLib.checks.preflight import (
    Finding,
    check_candidates,
    check_ct,
    check_known_voxels,
    check_lungs,
    stop_on_errors,
)
from NLSTSegLib.checks.training_overlap import check_trained_on
from NLSTSegLib.errors import InputError, ModelError, NLSTSegError, is_out_of_memory
from NLSTSegLib.inference.devices import check_device, choose_device, shortcoming
from NLSTSegLib.inference.lung_field import find_lungs
from NLSTSegLib.inference.predict import predict_on
from NLSTSegLib.lesions.find import Lesion, find_lesions, label_map, measure_lesions, outline_lesions
from NLSTSegLib.lesions.place import LungExtent
from NLSTSegLib.lesions.rows import Row, lesion_row
from NLSTSegLib.models.bundle import Model, ModelCard
from NLSTSegLib.progress import Fraction, Progress, silent, stage_of
from NLSTSegLib.volume.ct import CtVolume, Grid, from_canonical, to_canonical
from NLSTSegLib.volume.regular_grid import SliceStack, from_regular, nearest_voxel, slice_stack, to_regular

if TYPE_CHECKING:
    import SimpleITK as sitk

NETWORK, LESIONS = 0.06, 0.95
"""Progress at which the networks begin and end."""


@dataclass(frozen=True)
class SegmentOptions:
    """What a user may choose; ``None`` stands for the model's own value."""

    threshold: float | None = None
    """Probability above which a voxel belongs to a lesion, 0 < threshold < 1."""
    min_volume_mm3: float | None = None
    """Smaller components are dropped."""
    lung_field: str | np.ndarray = "auto"
    """``"auto"``, ``"none"`` (look everywhere) or a boolean mask ``[k, j, i]`` on the voxels of the CT."""
    device: str = "auto"
    """``auto``, ``cpu``, ``gpu``, ``gpu:1`` (the second card), ``cuda`` or ``mps``."""
    threads: int | None = None
    """CPU threads of torch."""
    accept_holes: bool = False
    """Slices missing within the lungs are a warning instead of an error."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"the threshold must lie between 0 and 1, not {self.threshold}")
        if self.min_volume_mm3 is not None and not 0 <= self.min_volume_mm3 < 1e9:
            raise InputError(f"the minimum volume must be 0 mm3 or more, not {self.min_volume_mm3}")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise InputError(f"the number of threads must be 1 or more, not {self.threads}")
        if not isinstance(self.lung_field, np.ndarray) and self.lung_field not in ("auto", "none"):
            raise InputError(f"the lung field must be 'auto', 'none' or a mask, not '{self.lung_field}'")
        check_device(self.device)


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """What :func:`segment` found in ``ct``.

    ``canonical`` is ``regular`` with axes permuted to LPS; the lesions' boxes, masks and slice numbers count on its grid.
    ``labels`` and ``probability`` are on the voxels of ``ct``.
    """

    ct: CtVolume
    regular: CtVolume
    """``ct`` itself, or its voxels resampled to a regular grid where its slices lean or lie unevenly."""
    canonical: CtVolume
    canonical_probability: np.ndarray
    """uint8 ``[k, j, i]``, 255 is 1."""
    lesions: tuple[Lesion, ...]
    findings: tuple[Finding, ...]
    card: ModelCard
    threshold: float
    min_volume_mm3: float
    lung_field_note: str
    """``"auto"``, ``"none"``, ``"given"``, or that no lungs were found and everything was searched."""
    device_note: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage."""
    lung_mask: np.ndarray | None = None
    """bool ``[k, j, i]`` on ``canonical``: where lesions were looked for; ``None`` is everywhere."""
    lungs: LungExtent | None = None
    """Where the lungs lie, by which side and third are told; ``None`` where they were not looked for or not made out."""

    @property
    def grid(self) -> Grid:
        """Where the voxels of ``labels`` and ``probability`` lie."""
        return self.ct.grid

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8 or uint16 ``[k, j, i]`` on the source voxels: k is lesion k, which has one voxel at least."""
        labels = self._on_source(label_map(self.lesions, self.canonical.hu.shape))
        if self.regular is not self.ct:
            there = set(np.unique(labels).tolist())
            for lesion in self.lesions:
                # So small, or in such a gap, that no source voxel has a voxel of it for its nearest.
                if lesion.label not in there:
                    i, j, k = nearest_voxel(lesion.measurements.centroid_lps_mm, self.ct, slice_stack(self.ct))
                    labels[k, j, i] = lesion.label
        return labels

    @cached_property
    def probability(self) -> np.ndarray:
        """uint8 ``[k, j, i]`` on the source voxels, 255 is 1."""
        return self._on_source(self.canonical_probability)

    def probability_float(self) -> np.ndarray:
        """float32 ``[k, j, i]`` on the source voxels, 0 to 1 in steps of 1/255."""
        return self.probability.astype(np.float32) / np.float32(255)

    def label_image(self) -> sitk.Image:
        """``labels`` as a SimpleITK image with spacing, origin (mm, LPS) and direction of the CT."""
        return self.ct.image_like(self.labels)

    def row(self, lesion: Lesion) -> Row:
        """One lesion's numbers as they are shown and written, see :func:`NLSTSegLib.lesions.rows.lesion_row`."""
        return lesion_row(lesion, self.ct, self.regular, self.lungs)

    def to_rows(self) -> list[Row]:
        """One row a lesion, by descending volume: the columns of ``lesions.csv`` (``pandas.DataFrame(result.to_rows())``)."""
        return [self.row(lesion) for lesion in self.lesions]

    def at_threshold(self, threshold: float, min_volume_mm3: float | None = None) -> SegmentationResult:
        """The result that another threshold (0 < threshold < 1), and smallest volume in mm3, give; no network runs again.

        Raises :class:`InputError` for values out of range, and for a lower threshold than that of the run with the published
        network, which follows lesions out of the lung field only where they pass the threshold of the run.
        """
        SegmentOptions(threshold=threshold, min_volume_mm3=min_volume_mm3)
        if self.card.architecture.kind == "published" and threshold < self.threshold:
            what = f"the published network searched on from the lung field at threshold {self.threshold:g} only"
            raise InputError(f"{what}, so lesions at {threshold:g} may be cut; run segment again with threshold={threshold:g}")
        minimum = self.min_volume_mm3 if min_volume_mm3 is None else min_volume_mm3
        lesions = find_lesions(
            self.canonical_probability,
            self.canonical,
            threshold=threshold,
            min_volume_mm3=minimum,
            lung_mask=self.lung_mask,
        )
        return replace(self, lesions=tuple(lesions), threshold=threshold, min_volume_mm3=minimum)

    def _on_source(self, array: np.ndarray) -> np.ndarray:
        return from_regular(from_canonical(array, self.canonical, self.regular), self.ct, slice_stack(self.ct))


def segment(ct: CtVolume, model: Model, options: SegmentOptions | None = None, progress: Progress = silent) -> SegmentationResult:
    """Find the lesions in ``ct``.

    ``progress(fraction, stage)`` is called as the work goes on and may raise to stop it. Raises :class:`InputError`
    for a CT that the pre-flight refuses or options that do not fit it.
    """
    options = options or SegmentOptions()
    seconds: dict[str, float] = {}
    threshold = model.card.threshold if options.threshold is None else options.threshold
    minimum = model.card.min_volume_mm3 if options.min_volume_mm3 is None else options.min_volume_mm3

    with _timed(seconds, "check"):
        progress(0.0, "check")
        findings = check_ct(ct)
        stop_on_errors(findings)
        findings += check_trained_on(ct, model.card)
        stack = slice_stack(ct)
        regular = to_regular(ct, stack)
        canonical = to_canonical(regular)
        known = check_known_voxels(canonical, model.card.in_plane_range_mm, model.card.slice_range_mm)
        findings += [finding for finding in known if finding.code not in {found.code for found in findings}]
    with _timed(seconds, "lung field"):
        progress(0.02, "lung field")
        lung_mask, lungs, lung_findings, field_note = _lung_mask(ct, stack, canonical, options)
        if lung_mask is not None:
            on_regular = from_canonical(lung_mask, canonical, regular)
            lung_findings += check_holes(stack, regular, on_regular, accepted=options.accept_holes)
        stop_on_errors(lung_findings)
        findings += lung_findings
    with _timed(seconds, "network", ModelError):
        progress(NETWORK, "network")
        report = stage_of(progress, "network", NETWORK, LESIONS)
        probability, device_note, left_out = _predict(canonical, model, options, lung_mask, threshold, report)
        findings += check_candidates(left_out)
    with _timed(seconds, "lesions"):
        progress(LESIONS, "lesions")
        outlines = outline_lesions(probability, canonical, threshold=threshold, min_volume_mm3=minimum, lung_mask=lung_mask)
    with _timed(seconds, "measurements"):
        lesions = measure_lesions(outlines, probability, canonical)
    progress(1.0, "done")
    return SegmentationResult(
        ct=ct,
        regular=regular,
        canonical=canonical,
        canonical_probability=probability,
        lesions=tuple(lesions),
        findings=tuple(findings),
        card=model.card,
        threshold=threshold,
        min_volume_mm3=minimum,
        lung_field_note=field_note,
        device_note=device_note,
        seconds=seconds,
        lung_mask=lung_mask,
        lungs=lungs,
    )


def _lung_mask(
    ct: CtVolume, stack: SliceStack, canonical: CtVolume, options: SegmentOptions
) -> tuple[np.ndarray | None, LungExtent | None, list[Finding], str]:
    if isinstance(options.lung_field, np.ndarray):
        if options.lung_field.shape != ct.hu.shape:
            raise InputError(f"the lung field of shape {options.lung_field.shape} does not fit the CT's {ct.hu.shape}")
        if not options.lung_field.any():
            raise InputError("the lung field is empty, so nothing would be searched; give one with the lungs, or 'none'")
        mask = replace(ct, hu=(options.lung_field != 0).astype(np.int16))
        return to_canonical(to_regular(mask, stack)).hu > 0, None, [], "given"
    if options.lung_field == "none":
        return None, None, [], "none"
    lungs = find_lungs(canonical)
    if lungs is None:
        return None, None, check_lungs(canonical, None), "auto: no lungs found, everything was searched"
    return lungs.mask, lungs.extent, check_lungs(canonical, lungs.mask), "auto"


def _predict(
    canonical: CtVolume,
    model: Model,
    options: SegmentOptions,
    lung_mask: np.ndarray | None,
    threshold: float,
    progress: Fraction,
) -> tuple[np.ndarray, str, int]:
    """On the device asked for; on the CPU, and said so, where a graphics card does not manage it. With the number of candidates
    that were not refined."""
    device = choose_device(options.device, options.threads)
    left_out: list[int] = []
    try:
        return *predict_on(device, canonical, model, lung_mask, threshold, progress, left_out.append), sum(left_out)
    except (MemoryError, RuntimeError, OverflowError) as error:
        reason = shortcoming(error)
        if device.name == "cpu" or not reason:
            raise
    cpu = choose_device("cpu", options.threads)
    left_out.clear()
    probability, note = predict_on(cpu, canonical, model, lung_mask, threshold, progress, left_out.append)
    return probability, f"{note}; {device.note} {reason}", sum(left_out)


@contextmanager
def _timed(seconds: dict[str, float], stage: str, without_memory: type[NLSTSegError] = InputError) -> Iterator[None]:
    """Note how long the block takes; raise ``without_memory`` when the memory does not suffice for it."""
    start = time.perf_counter()
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fix = "close other programs, choose the device cpu if it ran on a graphics card, or take a computer with more"
        raise without_memory(f"there is too little memory for this CT (stage: {stage}); {fix}") from error
    seconds[stage] = round(time.perf_counter() - start, 3)
