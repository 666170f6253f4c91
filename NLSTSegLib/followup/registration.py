"""Where a place of one CT lies in a later CT of the same patient, and whether that can be trusted.

Three steps, each on coarse copies of the CTs: the shift by the normalized correlation of every overlap, so that half a chest is
not squeezed onto a whole one; an affine transform, then a coarse B-spline, by mutual information (Mattes 2001). The result is
accepted by the correlation of HU inside the lungs afterwards. Points are moved, images never: a registration shrinks what grew.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.inference.lung_field import find_lungs
from NLSTSegLib.progress import Fraction, Progress, silent, stage_of
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

if TYPE_CHECKING:
    import SimpleITK as sitk

SEARCH_MM, COARSE_MM = 8.0, 3.0
"""Voxels of the search for the shift, and of what follows."""

RANGE_HU = (-1000.0, 200.0)
"""Beyond it HU count as its ends: contrast and bone say little of where the lungs are."""

HIGHEST_HU = 400
"""Of what is registered: brighter bone and metal count as this."""

LEAST_OVERLAP = 0.25
"""Share of the smaller CT that a shift leaves in the other."""

MARGIN_MM = 12.0
"""Distance around the lungs within which voxels count; the grid of the spline is larger by it."""

AFFINE_SAMPLES, SPLINE_SAMPLES = 15_000, 20_000
"""About so many voxels around the lungs are compared in every step."""

MESH_MM = 50.0
"""Distance of the spline's control points."""

SEED = 1
"""Seed of the choice of voxels that are compared: two runs give the same."""

LEAST_CORRELATION = 0.75
"""Least correlation of HU in the lungs. The same patient reached 0.88 to 0.97, others 0.47 to 0.57, on four patients."""

FOLDED_JACOBIAN, MOST_FOLDED = 0.1, 0.01
"""Where the volume shrinks to this share the transform folds; so much of the lungs may at the most."""

LEAST_LUNG_ML = 100.0
"""Volume of lung that both CTs show; of less a correlation says nothing."""

LUNG_BELOW_HU, VESSELS_MM = -500, 6.0
"""The lungs that are compared: air in the field, closed over its vessels."""


@dataclass(frozen=True, eq=False)
class Registration:
    """How places of the baseline move to the follow-up, in LPS mm."""

    transform: sitk.Transform
    correlation: float
    """Correlation of HU in the lungs that both show, -1 to 1."""
    seen_share: float
    """Share of the baseline's lungs that the follow-up shows."""
    folded_share: float
    seen_share_back: float
    """Share of the follow-up's lungs that the baseline shows."""
    lungs_ml: tuple[float, float]
    """Volume of the lungs that each CT shows."""
    refusal: str
    """Why it is not used, in one sentence; empty where it is accepted."""

    @property
    def is_accepted(self) -> bool:
        """Whether pairs may be made by it."""
        return not self.refusal

    def forward(self, point_lps_mm: np.ndarray) -> np.ndarray:
        """Place in the follow-up of a place ``(l, p, s)`` of the baseline."""
        return np.array(self.transform.TransformPoint(np.asarray(point_lps_mm, float).tolist()))

    def backward(self, point_lps_mm: np.ndarray) -> np.ndarray:
        """Place in the baseline of a place of the follow-up: found step by step, to a hundredth of a mm."""
        wanted = np.asarray(point_lps_mm, float)
        at = wanted - (self.forward(wanted) - wanted)
        for _ in range(50):
            off = self.forward(at) - wanted
            if np.linalg.norm(off) < 0.01:
                break
            at = at - off
        return at


def register(baseline: CtVolume, followup: CtVolume, progress: Progress = silent) -> Registration:
    """The registration of two CTs on canonical axes; ``progress(fraction, stage)`` may raise to stop it.

    A pair that cannot be registered gives a registration that says why, with the identity for a transform.
    """
    import SimpleITK as sitk

    progress(0.0, "lungs")
    fixed, moving = _coarse(baseline), _coarse(followup)
    lungs, other_lungs = _lungs(fixed), _lungs(moving)
    if lungs is None or other_lungs is None:
        which = "the baseline" if lungs is None else "the follow-up"
        return Registration(
            sitk.Transform(3, sitk.sitkIdentity), 0.0, 0.0, 0.0, 0.0, (0.0, 0.0), f"no lungs were found in {which}"
        )
    region = _grown(lungs, MARGIN_MM)
    progress(0.2, "shift")
    shift = _best_shift(fixed, moving)
    progress(0.3, "affine")
    affine = _affine(fixed, moving, region, shift, stage_of(progress, "affine", 0.3, 0.55))
    progress(0.55, "deformation")
    transform = _spline(fixed, moving, region, affine, stage_of(progress, "deformation", 0.55, 0.9))
    progress(0.9, "judgement")
    found = judge(fixed, moving, lungs, other_lungs, transform)
    progress(1.0, "done")
    return found


def judge(
    fixed: sitk.Image, moving: sitk.Image, lungs: sitk.Image, other_lungs: sitk.Image, transform: sitk.Transform
) -> Registration:
    """Whether ``transform`` is to be trusted, by the lungs (masks on ``fixed`` and on ``moving``)."""
    import SimpleITK as sitk

    moved = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, float(2 * PADDING_HU))
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    there = inside & (sitk.GetArrayViewFromImage(moved) > 1.5 * PADDING_HU)
    moved_lungs = sitk.Resample(other_lungs, fixed, transform, sitk.sitkNearestNeighbor, 0)
    lungs_ml, other_ml = _ml(lungs), _ml(other_lungs)
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    )
    jacobian = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
    # What of the follow-up's lungs the baseline's grid holds, in the follow-up's own volume.
    held = float(jacobian[sitk.GetArrayViewFromImage(moved_lungs) > 0].clip(0).sum()) * float(np.prod(fixed.GetSpacing())) / 1000
    seen, seen_back = float(there.sum() / inside.sum()), min(1.0, held / other_ml)
    shared_ml = seen * lungs_ml
    correlation = folded = 0.0
    if shared_ml >= LEAST_LUNG_ML:
        a, b = (sitk.GetArrayViewFromImage(image)[there] for image in (fixed, moved))
        correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
        folded = float((jacobian[there] <= FOLDED_JACOBIAN).mean())
    refusal = ""
    if shared_ml < LEAST_LUNG_ML:
        refusal = f"they share only {shared_ml:.0f} ml of lung"
    elif correlation < LEAST_CORRELATION:
        refusal = f"their lungs do not agree (correlation {correlation:.2f}, below {LEAST_CORRELATION:g})"
    elif folded > MOST_FOLDED:
        refusal = f"the deformation folds {100 * folded:.0f} % of the lungs"
    return Registration(transform, correlation, seen, folded, seen_back, (lungs_ml, other_ml), refusal)


def _ml(mask: sitk.Image) -> float:
    import SimpleITK as sitk

    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) * float(np.prod(mask.GetSpacing())) / 1000


def _coarse(ct: CtVolume) -> sitk.Image:
    """float32 HU on voxels of about :data:`COARSE_MM`, each the mean of the CT's own."""
    import SimpleITK as sitk

    shrink = [
        min(max(1, int(COARSE_MM / step + 0.3)), size) for step, size in zip(ct.spacing_ijk_mm, ct.hu.shape[::-1], strict=True)
    ]
    i, j, k = shrink
    depth, height, width = (n // step for n, step in zip(ct.hu.shape, (k, j, i), strict=True))
    coarse = np.empty((depth, height, width), np.float32)
    for n in range(depth):
        # Slab by slab: SimpleITK's filter would copy the CT, and once more in double.
        slab = ct.hu[n * k : (n + 1) * k, : height * j, : width * i].reshape(k, height, j, width, i)
        coarse[n] = slab.mean(axis=(0, 2, 4), dtype=np.float32)
    image = sitk.GetImageFromArray(coarse.clip(PADDING_HU, HIGHEST_HU))
    image.SetSpacing(np.multiply(ct.spacing_ijk_mm, shrink).tolist())
    image.SetOrigin(ct.lps_from_ijk_mm((np.array(shrink) - 1) / 2).tolist())
    image.SetDirection(ct.direction_lps)
    return image


def _lungs(coarse: sitk.Image) -> sitk.Image | None:
    """uint8 mask of the lungs with their vessels, without what the lung field closes."""
    import SimpleITK as sitk

    hu = sitk.GetArrayFromImage(coarse)
    ct = CtVolume(hu, coarse.GetSpacing(), coarse.GetOrigin(), coarse.GetDirection())
    found = find_lungs(ct)
    if found is None:
        return None
    air = sitk.GetImageFromArray((found.mask & (hu < LUNG_BELOW_HU)).astype(np.uint8))
    air.CopyInformation(coarse)
    radius = [max(1, round(VESSELS_MM / step)) for step in coarse.GetSpacing()]
    return sitk.BinaryMorphologicalClosing(air, radius)


def _grown(mask: sitk.Image, margin_mm: float) -> sitk.Image:
    import SimpleITK as sitk

    return sitk.BinaryDilate(mask, [max(1, round(margin_mm / step)) for step in mask.GetSpacing()], sitk.sitkBox)


def _best_shift(fixed: sitk.Image, moving: sitk.Image) -> np.ndarray:
    """Shift from the fixed to the moving image in mm: where they correlate best over all overlaps (Padfield 2012)."""
    import SimpleITK as sitk

    def blocks(image: sitk.Image) -> sitk.Image:
        size = [max(4, int(np.ceil(n * step / SEARCH_MM))) for n, step in zip(image.GetSize(), image.GetSpacing(), strict=True)]
        smooth = sitk.SmoothingRecursiveGaussian(image, SEARCH_MM / 2)
        low, high = RANGE_HU
        place = image.GetOrigin(), [SEARCH_MM] * 3, image.GetDirection()
        blocks = sitk.Resample(smooth, size, sitk.Transform(), sitk.sitkLinear, *place, low)
        return sitk.Clamp(blocks, sitk.sitkFloat32, low, high)

    one, other = blocks(fixed), blocks(moving)
    ones = [sitk.GetImageFromArray(np.ones(image.GetSize()[::-1], np.float32)) for image in (one, other)]
    plain = [sitk.GetImageFromArray(sitk.GetArrayFromImage(image)) for image in (one, other)]
    scores = sitk.GetArrayFromImage(sitk.MaskedFFTNormalizedCorrelation(plain[0], plain[1], ones[0], ones[1], 0, LEAST_OVERLAP))
    best = np.array(np.unravel_index(np.argmax(scores), scores.shape)[::-1])
    steps = best - (np.array(other.GetSize()) - 1)
    # The other image, moved by so many voxels, lies on the one; in the patient that is the way back.
    return np.array(other.GetOrigin()) - np.array(one.GetOrigin()) - steps * SEARCH_MM


def _method(region: sitk.Image, samples: int) -> sitk.ImageRegistrationMethod:
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(region)
    method.SetMetricSamplingStrategy(method.RANDOM)
    # The share counts for the whole image, of which those outside the region are left out.
    inside = int(np.count_nonzero(sitk.GetArrayViewFromImage(region)))
    method.SetMetricSamplingPercentage(min(1.0, samples / inside), SEED)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _report(method: sitk.ImageRegistrationMethod, most: int, progress: Fraction) -> None:
    """Progress by the number of steps, of which there are ``most``; optimizers count anew at every level."""
    import SimpleITK as sitk

    steps = itertools.count(1)
    method.AddCommand(sitk.sitkIterationEvent, lambda: progress(min(1.0, next(steps) / most)))


def _affine(
    fixed: sitk.Image, moving: sitk.Image, region: sitk.Image, shift_mm: np.ndarray, progress: Fraction
) -> sitk.Transform:
    import SimpleITK as sitk

    start = sitk.AffineTransform(3)
    points = np.argwhere(sitk.GetArrayViewFromImage(region) > 0)[:, ::-1]
    start.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint(points.mean(axis=0).tolist()))
    start.SetTranslation(shift_mm.tolist())
    method = _method(region, AFFINE_SAMPLES)
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 0.02, 150, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    _report(method, 2 * 150, progress)
    method.Execute(fixed, moving)
    return start


def _spline(
    fixed: sitk.Image, moving: sitk.Image, region: sitk.Image, affine: sitk.Transform, progress: Fraction
) -> sitk.Transform:
    import SimpleITK as sitk

    inside = np.argwhere(sitk.GetArrayViewFromImage(region) > 0)[:, ::-1]
    low, high = inside.min(axis=0), inside.max(axis=0)
    # A spline is the identity outside its grid, so the grid is the box of the lungs and what is around them.
    box = fixed[tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))]
    mesh = [max(2, round(n * step / MESH_MM)) for n, step in zip(box.GetSize(), box.GetSpacing(), strict=True)]
    spline = sitk.BSplineTransformInitializer(box, mesh, order=3)
    method = _method(region, SPLINE_SAMPLES)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=20, maximumNumberOfFunctionEvaluations=25)
    method.SetMovingInitialTransform(affine)
    method.SetInitialTransform(spline, inPlace=True)
    _report(method, 20, progress)
    method.Execute(fixed, moving)
    # Of a composite the last part comes first: the spline, then the affine.
    return sitk.CompositeTransform([affine, spline])
