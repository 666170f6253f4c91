"""Where a network runs: what is asked for, what it becomes on this computer, and how numbers get there and back."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np

from NLSTSegLib.errors import InputError, is_out_of_memory

if TYPE_CHECKING:
    import torch

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]
"""What a panel offers; :data:`DEVICE` has all that can be asked for."""

DEVICE = re.compile(r"auto|cpu|mps|(?:gpu|cuda)(?::\d{1,3})?")
"""``gpu`` is whatever graphics card there is, ``gpu:1`` (or ``cuda:1``) the second one of several."""

Precision = Literal["float32", "bfloat16", "float16"]

Network = TypeVar("Network", bound="torch.nn.Module")

GPU_BATCH_SLICES = 8
"""Slices a graphics card takes at once, where its memory holds them: as many as share a crop. On a CPU single slices stay in
the cache."""

COUNTED_PX = 512
"""Side of the slice on which a network's numbers are counted: a multiple of what any network's levels need."""


@dataclass(frozen=True)
class DeviceRequest:
    """Where somebody wants networks to run; :func:`choose_device` says what that is on this computer."""

    choice: str = "auto"
    """One of :data:`DEVICE`."""
    threads: int | None = None
    """CPU threads of torch."""


@dataclass(frozen=True)
class Device:
    """``name`` for torch, the precision there, how many slices to run at once at most, and a sentence for the report."""

    name: str
    precision: Precision
    most_slices: int
    note: str

    @property
    def dtype(self) -> torch.dtype:
        """The precision for torch."""
        import torch

        return getattr(torch, self.precision)

    def place(self, network: Network, dimensions: int) -> Network:
        """Move a 2D or 3D ``network`` there. Raises ``NotImplementedError`` for a 3D one on Apple graphics: their 3D
        convolutions were wrong without a word as late as in macOS 26.2 (pytorch issue 197114)."""
        if self.name == "mps" and dimensions == 3:
            raise NotImplementedError("3D convolutions on Apple graphics are not relied on")
        network = network.to(self.name, self.dtype)
        return network.to(memory_format=memory_format(self.name, dimensions))  # type: ignore[call-overload]

    def slices_at_once(self, network: torch.nn.Module, input_slices: int, pixels: int) -> int:
        """How many slices of so many pixels a 2D or 2.5D ``network`` takes at once, as far as the device's free memory goes."""
        if self.most_slices == 1:
            return 1
        slice_bytes = pixels * bytes_per_pixel(network, input_slices, self.dtype)
        return max(1, min(self.most_slices, int(_free_bytes(self.name) / slice_bytes)))


PLAIN_CPU = Device("cpu", "float32", 1, "CPU, float32")
"""Runs any network with its own numbers."""


def check_device(choice: str) -> None:
    """Raise :class:`InputError` unless ``choice`` is one of :data:`DEVICE`."""
    if not DEVICE.fullmatch(choice):
        raise InputError(f"the device must be one of auto, cpu, gpu, gpu:1 (the second card), cuda and mps, not '{choice}'")


def choose_device(choice: str = "auto", threads: int | None = None) -> Device:
    """The device asked for (see :data:`DEVICE`), or the fastest there is; sets torch's CPU threads when ``threads`` is given.

    Raises :class:`InputError` when the device asked for is not on this computer.
    """
    import torch

    check_device(choice)
    kind, _, index = choice.partition(":")
    if threads is not None:
        torch.set_num_threads(threads)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (kind == "cuda" or index) and not has_cuda:
        raise InputError(
            f"device '{choice}' is not available: no CUDA graphics card is seen by torch; choose the device auto or cpu"
        )
    if index and int(index) >= torch.cuda.device_count():
        raise InputError(f"device '{choice}' is not there: torch sees {torch.cuda.device_count()} graphics cards, from cuda:0 on")
    if kind == "gpu" and not (has_cuda or has_mps):
        raise InputError("device 'gpu' is not available: torch sees no graphics card; choose the device auto or cpu")
    if kind == "mps" and not has_mps:
        raise InputError(
            "device 'mps' is not available: this is no Mac with Apple graphics, or torch is built without; choose the device auto"
        )
    if kind in ("cuda", "gpu", "auto") and has_cuda:
        name = f"cuda:{index}" if index else "cuda"
        # Not bfloat16, which newer cards have too: it changes five to ten times as many voxels (docs/performance.md).
        return Device(name, "float16", GPU_BATCH_SLICES, f"graphics card {torch.cuda.get_device_name(name)}, float16")
    if kind in ("mps", "gpu", "auto") and has_mps:
        return Device("mps", "float32", GPU_BATCH_SLICES, "Apple graphics, float32")
    precision: Precision = "bfloat16" if _cpu_has_bfloat16() else "float32"
    return Device("cpu", precision, 1, f"CPU, {torch.get_num_threads()} threads, {precision}")


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


def _free_bytes(device: str) -> int:
    """Memory of a graphics card that nobody uses now; of Apple graphics, what macOS lets them have."""
    import torch

    if _is_cuda(device):
        return torch.cuda.mem_get_info(device)[0]
    return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()


def bytes_per_pixel(network: torch.nn.Module, input_slices: int, dtype: torch.dtype) -> float:
    """What all layers of a 2D or 2.5D ``network`` together answer to a slice, per pixel of it.

    That is several times what is held at once, so it leaves room for what the libraries need for themselves.
    """
    import torch

    numbers = 0

    def count(_layer: torch.nn.Module, _x: Any, y: torch.Tensor) -> None:
        nonlocal numbers
        numbers += y.numel()

    # On this device there are shapes and no numbers, so it takes neither time nor memory.
    shapes_alone = copy.deepcopy(network).to("meta", dtype)
    for layer in shapes_alone.modules():
        if not any(layer.children()):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        shapes_alone(torch.empty(1, input_slices, COUNTED_PX, COUNTED_PX, dtype=dtype, device="meta"))
    return numbers * dtype.itemsize / COUNTED_PX**2


def memory_format(device: str, dimensions: int) -> torch.memory_format:
    """Order in which the numbers of a 2D or 3D network and its input lie: channels last, the fastest for convolutions.

    Not for Apple graphics: from macOS 15 on torch, up to 2.13 at least, takes weights in another order than the usual one
    for others, and gives wrong answers without a word (pytorch issue 192212).
    """
    import torch

    if torch.device(device).type == "mps":
        return torch.contiguous_format
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


def to_device(values: np.ndarray, device: Device) -> torch.Tensor:
    """``values`` (float32 ``[batch, channel, j, i]`` or ``[batch, channel, k, j, i]``) as a network there takes them.

    A CUDA card gets them from page-locked memory: a copy from any other would wait for all that the card has still to do.
    """
    import torch

    here, is_cuda = torch.from_numpy(values), _is_cuda(device.name)
    if is_cuda:
        here = here.pin_memory()
    there = here.to(device.name, non_blocking=is_cuda)
    return there.to(device.dtype, memory_format=memory_format(device.name, values.ndim - 2))


def to_host(values: torch.Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy ``values`` from their device. What is returned waits for them, and hands them on."""
    import torch

    # From a CUDA card this is a copy into page-locked memory.
    here = values.to("cpu", non_blocking=values.is_cuda)
    if not values.is_cuda:
        return here.numpy
    arrived = torch.cuda.Event()
    # Not the end of all work: the card may have been given more by the time somebody waits.
    arrived.record(torch.cuda.current_stream(values.device))

    def wait() -> np.ndarray:
        arrived.synchronize()
        return here.numpy()

    return wait


def shortcoming(error: Exception) -> str:
    """What a graphics card lacks, in words, if that is what ``error`` says; else nothing."""
    if is_out_of_memory(error):
        return "has too little memory"
    if isinstance(error, NotImplementedError) or "not supported on MPS" in str(error):
        return "lacks an operation of this network"
    if isinstance(error, OverflowError):
        return "has no numbers as large as this network's"
    return ""


def _is_cuda(device: str) -> bool:
    import torch

    return torch.device(device).type == "cuda"
