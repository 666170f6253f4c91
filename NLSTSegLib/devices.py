"""Where a network runs and in which precision."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    import torch

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]

GPU_BATCH_SLICES = 8
"""Slices a graphics card takes at once; on a CPU single slices stay in the cache."""


@dataclass(frozen=True)
class Device:
    """``name`` and ``dtype`` for torch, how many slices to run at once, and a sentence for the report."""

    name: str
    dtype: torch.dtype
    batch_slices: int
    note: str


def choose_device(choice: DeviceChoice = "auto", threads: int | None = None) -> Device:
    """The device asked for, or the fastest there is; sets torch's CPU threads when ``threads`` is given.

    Raises :class:`InputError` when the device asked for is not on this computer.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if choice == "cuda" and not has_cuda:
        raise InputError("device 'cuda' is not available: no CUDA graphics card is seen by torch; use --device auto or cpu")
    if choice == "mps" and not has_mps:
        raise InputError(
            "device 'mps' is not available: this is no Mac with Apple graphics, or torch is built without; use --device auto"
        )
    if choice == "cuda" or (choice == "auto" and has_cuda):
        return Device("cuda", torch.float16, GPU_BATCH_SLICES, f"graphics card {torch.cuda.get_device_name()}, float16")
    if choice == "mps" or (choice == "auto" and has_mps):
        return Device("mps", torch.float32, GPU_BATCH_SLICES, "Apple graphics, float32")
    dtype = torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    return Device("cpu", dtype, 1, f"CPU, {torch.get_num_threads()} threads, {str(dtype).removeprefix('torch.')}")


def device_notes() -> dict[DeviceChoice, str]:
    """What each choice means on this computer, as the note of its :class:`Device`; without those that are not there."""
    notes: dict[DeviceChoice, str] = {}
    for choice in get_args(DeviceChoice):
        # What is not there is left out.
        with contextlib.suppress(InputError):
            notes[choice] = choose_device(choice).note
    return notes


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without, it is slower than float32."""
    import torch

    # torch before 2.11 cannot tell; float32 is right everywhere.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
