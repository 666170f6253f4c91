"""False positives, found by the network that makes them: the places that its training goes back to."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from nlstseg_training.batches.patches import Mined
from nlstseg_training.data.cache import load_case
from NLSTSegLib.inference.devices import Device
from NLSTSegLib.inference.patches import predict_patches
from NLSTSegLib.inference.slices import predict_slices
from NLSTSegLib.models.specs import InputSpec
from NLSTSegLib.networks.network import Network, fold_batch_norm
from NLSTSegLib.volume.components import component_labels

THRESHOLD = 0.4
"""Probability from which a mark counts."""

MOST_PLACES = 400
"""In one case, the surest."""


def mine(network: Network, spec: InputSpec, cache: Path, case_ids: Iterable[str]) -> list[Mined]:
    """Where the network marks lung that no reader marked, one place for each component and pair of slices."""
    device = Device(str(next(network.parameters()).device), "bfloat16", 1, "")
    frozen = fold_batch_norm(copy.deepcopy(network).eval()).to(torch.bfloat16)
    predict = predict_slices if spec.patch_kji is None else predict_patches
    found = []
    for case_id in case_ids:
        case = load_case(cache, case_id)
        lungs = np.ones(case.ct.hu.shape, bool) if case.lungs is None else case.lungs
        probability = predict(frozen, spec, case.ct, lungs, device=device)
        wrong = (probability > 255 * THRESHOLD) & lungs
        labels = component_labels(wrong)
        kji = np.argwhere(wrong & ~np.isin(labels, np.unique(labels[case.target > 0])))
        kji = kji[np.argsort(-probability[tuple(kji.T)].astype(int), kind="stable")]
        # The surest voxel of each component and pair of slices stands for it.
        part = labels[tuple(kji.T)].astype(np.int64) * len(labels) + kji[:, 0] // 2
        _, first = np.unique(part, return_index=True)
        found += [Mined(case_id, (int(k), int(j), int(i))) for k, j, i in kji[np.sort(first)[:MOST_PLACES]]]
    return found
