"""False positives, found by the network that makes them: the places that its training goes back to."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.batches.patches import Mined
from nlstseg_training.data.cache import CaseEntry, load_case
from NLSTSegLib.inference.devices import Device
from NLSTSegLib.inference.patches import predict_patches
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.lesions.measure import sphere_diameter_mm
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.networks.network import Network, fold_batch_norm
from NLSTSegLib.volume.components import component_labels

THRESHOLD = 0.4
"""Probability from which a mark counts."""

MOST_PLACES = 400
"""Places taken in one case, the surest."""

MOST_CASES = 64
"""Looked through at a time, drawn anew every time: the others keep the places that were found in them before."""

NODULE_MM = (3.0, 30.0)
"""Diameters of the sphere of its volume between which a mark may be a nodule that nobody annotated: smaller ones are not
reported, larger ones are masses, which no reader of a screening CT passes over."""

NODULE_COMPACTNESS = 0.2
"""Least share of the sphere around it that a nodule fills; a vessel along its course fills a twentieth."""


def mine(network: Network, spec: InputSpec, cache: Path, entries: Iterable[CaseEntry]) -> list[Mined]:
    """Where the network marks lung that no reader marked, one place for each component and pair of slices.

    Where not every lesion is annotated (``complete`` is false) a mark may be a nodule that nobody annotated, and is left alone
    when it is of a nodule's size and shape (:func:`may_be_nodule`): what is elongated, tiny, or larger than a nodule is none.
    """
    device = Device(str(next(network.parameters()).device), "bfloat16", 1, "")
    frozen = fold_batch_norm(copy.deepcopy(network).eval()).to(torch.bfloat16)
    predict = predict_slices if spec.patch_kji is None else predict_patches
    found = []
    for entry in entries:
        case = load_case(cache, entry.id)
        lungs = np.ones(case.ct.hu.shape, bool) if case.lungs is None else case.lungs
        probability = predict(frozen, spec, case.ct, lungs, device=device)
        marked = (probability > 255 * THRESHOLD) & lungs
        labels = component_labels(marked)
        left_alone = np.unique(labels[case.target > 0]).tolist()
        if not entry.complete:
            left_alone += nodule_like(labels, case.ct.spacing_ijk_mm[::-1])
        kji = np.argwhere(marked & ~np.isin(labels, left_alone))
        kji = kji[np.argsort(-probability[tuple(kji.T)].astype(int), kind="stable")]
        # The surest voxel of each component and pair of slices stands for it.
        part = labels[tuple(kji.T)].astype(np.int64) * len(labels) + kji[:, 0] // 2
        _, first = np.unique(part, return_index=True)
        found += [Mined(entry.id, (int(k), int(j), int(i))) for k, j, i in kji[np.sort(first)[:MOST_PLACES]]]
    return found


def nodule_like(labels: np.ndarray, spacing_kji_mm: Sequence[float]) -> list[int]:
    """The components of ``labels`` that :func:`may_be_nodule`."""
    from scipy.ndimage import find_objects

    counts = np.bincount(labels.ravel())
    return [
        label
        for label, box in enumerate(find_objects(labels), start=1)
        if box is not None and may_be_nodule(int(counts[label]), [side.stop - side.start for side in box], spacing_kji_mm)
    ]


def may_be_nodule(voxels: int, size_kji: Sequence[int], spacing_kji_mm: Sequence[float]) -> bool:
    """Whether so many voxels in a box of ``size_kji`` are of a nodule's size, and fill enough of the sphere around the box."""
    volume_mm3 = voxels * float(np.prod(spacing_kji_mm))
    longest_mm = max(size * step for size, step in zip(size_kji, spacing_kji_mm, strict=True))
    low_mm, high_mm = NODULE_MM
    return low_mm <= sphere_diameter_mm(volume_mm3) <= high_mm and volume_mm3 >= NODULE_COMPACTNESS * np.pi / 6 * longest_mm**3


def cases_to_mine(entries: Sequence[CaseEntry], seed: int, epoch: int) -> list[CaseEntry]:
    """Chests and backgrounds, at most :data:`MOST_CASES` of them, others in every epoch."""
    chests = [entry for entry in entries if entry.kind != "crop"]
    if len(chests) <= MOST_CASES:
        return chests
    drawn = np.random.default_rng((seed, epoch, 2)).choice(len(chests), MOST_CASES, replace=False)
    return [chests[n] for n in np.sort(drawn)]
