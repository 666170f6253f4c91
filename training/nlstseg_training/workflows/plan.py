"""Two recipes for a cache, a 2.5D and a 3D one, with the reason beside every value that the data or the machine decide."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from nlstseg_training.data.fingerprint import Fingerprint, Quantiles

GIB = 2**30

ACTIVATIONS_25D, ACTIVATIONS_3D = 1700.0, 1450.0
"""Bytes for a pixel or voxel of a patch: twice what the networks below keep for their gradients in bfloat16 (843 and 714,
measured with torch's saved_tensors_hooks), since gradients and torch's own reserve take room too."""

CHANNELS_25D, CHANNELS_3D = (16, 32, 64, 128, 160), (24, 48, 96, 192)

MULTIPLE_25D, MULTIPLE_3D = 2 ** (len(CHANNELS_25D) - 1), 2 ** (len(CHANNELS_3D) - 1)

SEEN_TIMES = 200
"""Every lesion comes in so many patches at least: what the bundled model saw of each of its crops."""

EPOCH_STEPS = 250


@dataclass(frozen=True)
class Plan:
    """A recipe as TOML, and what the cache has to be prepared with for it."""

    name: str
    toml: str
    prepare_with: str


def machine_memory() -> tuple[float, str]:
    """Bytes that a training may take, and of what they are."""
    import torch

    if torch.cuda.is_available():
        own = torch.cuda.get_device_properties(0)
        return 0.8 * own.total_memory, f"0.8 of the {own.total_memory / GIB:.0f} GiB of {own.name}"
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * GIB
    return 0.4 * there, f"0.4 of the {there / GIB:.0f} GiB of this computer, which has no graphics card"


def plan_25d(found: Fingerprint, memory_bytes: float, memory_of: str) -> Plan:
    """Five slices in, one out; of chests alone if there is nothing else."""
    pixel_mm, step_mm = found.spacing_kji_mm[1][1], found.spacing_kji_mm[0][1]
    side = _side(found.diameter_mm[2], pixel_mm, MULTIPLE_25D, 96, 256)
    batch = _batch(memory_bytes, ACTIVATIONS_25D * side**2, 48)
    steps = max(1, round(SEEN_TIMES * found.lesions / (0.5 * batch) / EPOCH_STEPS))
    epochs = int(np.clip(steps, 10, 60))
    return Plan("plan-25d", f"""# Made by 'nlstseg-train plan' of {_data(found)}.
format = 1
name = "plan-25d"
description = "2.5D U-Net (five slices in, one out), planned for {found.lesions} lesions."
epoch_steps = {EPOCH_STEPS}

[architecture]
kind = "unet"
dimensions = 2
channels = {list(CHANNELS_25D)}
normalization = "batch"
residual = true

[input]
# From lung to the densest of the lesions: 95 % of their voxels are below {found.lesion_hu[2]:.0f} HU.
window_hu = [-1000.0, {_upper_hu(found)}]
slices = 5
# The slices lie {_shown(found.spacing_kji_mm[0])} mm apart; thinner ones are passed over.
slice_step_mm = {max(1.0, round(step_mm * 2) / 2):g}
margin_px = 32

[augmentation]
# Pixels are {_shown(found.spacing_kji_mm[1])} mm; nothing is resampled, so sizes in pixels vary as much and more.
zoom = [0.75, 1.4]
rotation_degrees = 20.0
shift_px = {side // 4}.0
flips = true
shift_hu = 25.0
contrast = 0.08
noise_hu = 15.0
blur_share = 0.25

[[phases]]
name = "all"
# So that each of {found.lesions} lesions is seen {SEEN_TIMES} times, in 10 to 60 epochs of {EPOCH_STEPS} steps.
epochs = {epochs}
learning_rate = 1e-3
mine_every_epochs = 3
# side_px: one and a half times the lesions' {found.diameter_mm[2]:.0f} mm (95th percentile) at {pixel_mm:.2f} mm, 96 to 256.
# batch: what {memory_of} holds, 48 at most.
sampling = {{batch = {batch}, side_px = {side}, lesions = 0.5, synthetic = 0.1, mined = 0.2}}
""", "")  # fmt: skip


def plan_3d(found: Fingerprint, memory_bytes: float, memory_of: str) -> Plan:
    """Patches of a volume at one spacing."""
    spacing = tuple(round(axis[1], 2) for axis in found.spacing_kji_mm)
    wanted_mm = max(48.0, 1.5 * found.diameter_mm[2])
    patch = [_side(wanted_mm / 1.5, step, MULTIPLE_3D, 2 * MULTIPLE_3D, 160) for step in spacing]
    while np.prod(patch) * ACTIVATIONS_3D * 2 > memory_bytes and max(patch) > 2 * MULTIPLE_3D:
        # The longest side in voxels gives first, as in nnU-Net.
        patch[patch.index(max(patch))] -= MULTIPLE_3D
    batch = _batch(memory_bytes, ACTIVATIONS_3D * float(np.prod(patch)), 16)
    side = patch[1] = patch[2] = min(patch[1:])
    epochs = int(np.clip(round(SEEN_TIMES * found.lesions / (0.5 * batch) / EPOCH_STEPS), 20, 400))
    steps = " ".join(f"{step:g}" for step in spacing)
    size_mm = " x ".join(f"{size * step:.0f}" for size, step in zip(patch, spacing, strict=True))
    between, in_plane, largest_mm = _shown(found.spacing_kji_mm[0]), _shown(found.spacing_kji_mm[1]), found.diameter_mm[2]
    return Plan("plan-3d", f"""# Made by 'nlstseg-train plan' of {_data(found)}.
# It needs a cache of its own: nlstseg-train prepare CACHE-3D --spacing {steps} ...
format = 1
name = "plan-3d"
description = "3D U-Net at {steps} mm, planned for {found.lesions} lesions."
epoch_steps = {EPOCH_STEPS}

[architecture]
kind = "unet"
dimensions = 3
channels = {list(CHANNELS_3D)}
normalization = "batch"
residual = true

[input]
# From lung to the densest of the lesions: 95 % of their voxels are below {found.lesion_hu[2]:.0f} HU.
window_hu = [-1000.0, {_upper_hu(found)}]
# The medians of the cases, which have {between} mm between slices and {in_plane} mm in plane.
spacing_kji_mm = {list(spacing)}
# {size_mm} mm: one and a half times the lesions' {largest_mm:.0f} mm (95th percentile) and 48 mm at least,
# or what two patches in {memory_of} allow.
patch_kji = {patch}
margin_px = 32

[augmentation]
zoom = [0.8, 1.25]
rotation_degrees = 15.0
shift_px = {side // 8}.0
flips = true
shift_hu = 25.0
contrast = 0.08
noise_hu = 15.0
blur_share = 0.25

[[phases]]
name = "all"
# So that each of {found.lesions} lesions is seen {SEEN_TIMES} times, in 20 to 400 epochs of {EPOCH_STEPS} steps.
epochs = {epochs}
learning_rate = 1e-3
mine_every_epochs = 10
# batch: what {memory_of} holds, 2 to 16.
sampling = {{batch = {batch}, side_px = {side}, lesions = 0.5, synthetic = 0.1, mined = 0.2}}
""", f"--spacing {steps}")  # fmt: skip


def _data(found: Fingerprint) -> str:
    what = f"{found.cases} cases ({found.chests} whole chests) with {found.lesions} lesions of {_shown(found.diameter_mm)} mm"
    return f"{what}; {found.incomplete} not completely annotated" if found.incomplete else what


def _shown(values: Quantiles) -> str:
    low, middle, high = (f"{value:.2f}".rstrip("0").rstrip(".") for value in values)
    return middle if low == high else f"{low} to {high} (median {middle})"


def _upper_hu(found: Fingerprint) -> float:
    """The next hundred above the lesions, and above contrast in vessels."""
    return float(max(400.0, 100 * np.ceil(np.nan_to_num(found.lesion_hu[2]) / 100)))


def _side(lesion_mm: float, step_mm: float, multiple: int, least: int, most: int) -> int:
    side = int(np.ceil(1.5 * lesion_mm / step_mm / multiple)) * multiple
    return int(np.clip(side, -(-least // multiple) * multiple, most // multiple * multiple))


def _batch(memory_bytes: float, bytes_of_patch: float, most: int) -> int:
    return int(np.clip(memory_bytes // bytes_of_patch, 2, most))
