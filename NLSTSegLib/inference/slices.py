"""From HU voxels to a probability volume: a 2D or 2.5D network over the slices of the lung field."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import numpy as np

from NLSTSegLib.errors import is_out_of_memory
from NLSTSegLib.inference.devices import to_device, to_host
from NLSTSegLib.models.specs import MAXIMUM_MARGIN_PX, InputSpec
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

if TYPE_CHECKING:
    import torch

    from NLSTSegLib.networks.published_sparse import PublishedFieldUNet

MAXIMUM_WORKERS = 4
"""Batches that a CPU runs at the same time, each on its share of the threads: after every layer all threads of a batch wait
for the slowest, and what one core works on stays in its cache. Memory grows with them."""

CHUNK_SLICES = 8
"""Slices that share one crop; neighbours have nearly the same lung outline."""

CROP_MULTIPLE = 16
"""Crops start and end at multiples of this (pixels), or of what the network's levels need if that is more: it then sees
the very pixel grid it would see on the whole slice, and there are few distinct sizes for the convolution library to plan."""


Crop = tuple[slice, slice, slice]
"""Slices, rows and columns that run together; rows and columns may reach beyond the image."""

Answer = Callable[[], np.ndarray]
"""Waits for what a graphics card has been asked for: it goes on with the next batch while this one is brought."""


def predict_slices(
    network: torch.nn.Module | PublishedFieldUNet,
    spec: InputSpec,
    ct: CtVolume,
    lung_mask: np.ndarray | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    batch_slices: int = 1,
    progress: Callable[[float], None] | None = None,
    smaller_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Probability of lesion per voxel, uint8 ``[k, j, i]`` (255 is 1), of a canonical ``ct``.

    ``network`` is one of :mod:`NLSTSegLib.networks`. Slices without ``lung_mask`` (boolean, the CT's shape) are skipped and
    stay 0; the others are cropped to it plus ``spec.margin_px``, or answered in the field alone by a
    :class:`PublishedFieldUNet`. ``progress(fraction)`` is called after every batch and may raise to stop. The network
    runs in worker threads (:data:`MAXIMUM_WORKERS`), so the calling thread prepares what follows and stays open to
    interrupts. Where the memory does not hold ``batch_slices`` at once, fewer are tried, down to one, and
    ``smaller_batch(slices)`` is told; what torch raises when it does not hold one is passed on. Raises ``OverflowError``
    where float16 does not hold the network's numbers.
    """
    import torch

    from NLSTSegLib.networks.published_sparse import PublishedFieldUNet

    dtype = dtype or torch.float32
    probability = np.zeros(ct.hu.shape, np.uint8)
    offsets = spec.slice_offsets(ct.spacing_ijk_mm[2])

    def run_at_once(batch: np.ndarray, wanted: np.ndarray | None) -> Answer:
        with torch.inference_mode():
            if isinstance(network, PublishedFieldUNet):
                where = np.ones(batch.shape[2:], bool) if wanted is None else wanted
                logits = network(torch.from_numpy(batch), where).where(torch.from_numpy(where), -torch.inf)
            else:
                logits = network(to_device(batch, device, dtype))
            return arriving(torch.sigmoid(logits.float()).mul_(255).round_().to(torch.uint8)[:, 0], logits)

    at_once = batch_slices

    def run(batch: np.ndarray, wanted: np.ndarray | None) -> list[Answer]:
        nonlocal at_once
        done: list[Answer] = []
        while len(batch):
            try:
                done.append(run_at_once(batch[:at_once], wanted))
                batch = batch[at_once:]
                continue
            except (MemoryError, RuntimeError) as error:
                at_once = min(at_once, len(batch)) // 2
                if not at_once or not is_out_of_memory(error):
                    raise
            # Here, since the error held what the attempt had taken.
            if torch.device(device).type != "cpu":
                torch.get_device_module(device).empty_cache()
            if smaller_batch is not None:
                smaller_batch(at_once)
        return done

    multiple = max(CROP_MULTIPLE, cast(int, network.side_multiple))
    if isinstance(network, PublishedFieldUNet):
        batches = list(_batches(ct.hu.shape, lung_mask, MAXIMUM_MARGIN_PX, multiple, 1))
    else:
        batches = list(_batches(ct.hu.shape, lung_mask, spec.margin_px, multiple, batch_slices))
    threads = torch.get_num_threads()
    workers = _workers(threads) if device == "cpu" else 1
    # A new thread would start with torch's own number of threads.
    executor = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    running: deque[tuple[Crop, Future[list[Answer]]]] = deque()
    done = 0

    def collect() -> None:
        nonlocal done
        _store(probability, *running.popleft())
        done += 1
        if progress is not None:
            progress(done / len(batches))

    try:
        for crop in batches:
            wanted = _wanted(lung_mask, crop) if isinstance(network, PublishedFieldUNet) else None
            running.append((crop, executor.submit(run, _network_input(ct.hu, crop, offsets, spec), wanted)))
            # One batch waits while others run: the network never does, and memory holds few.
            if len(running) > workers:
                collect()
        while running:
            collect()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        # What a worker has set holds for every thread to come.
        torch.set_num_threads(threads)
    return probability


def _workers(threads: int) -> int:
    """As many as leave the fewest of the threads idle."""
    return max(range(1, MAXIMUM_WORKERS + 1), key=lambda n: (threads // n * n, n))


def arriving(values: torch.Tensor, logits: torch.Tensor) -> Answer:
    """Begin to bring ``values``, which were made from ``logits``; what is returned waits for them.

    It raises ``OverflowError`` where float16 logits are not finite: the network's numbers have passed 65504 on the way.
    """
    import torch

    answer = to_host(values)
    if logits.dtype != torch.float16:
        return answer
    finite = to_host(logits.isfinite().all())

    def checked() -> np.ndarray:
        if not finite():
            raise OverflowError("the network's numbers do not fit into float16")
        return answer()

    return checked


def _store(probability: np.ndarray, crop: Crop, future: Future[list[Answer]]) -> None:
    inside = probability[crop]
    found = np.concatenate([answer() for answer in future.result()])
    inside[:] = found[:, : inside.shape[1], : inside.shape[2]]


def _batches(
    shape: tuple[int, ...], lung_mask: np.ndarray | None, margin_px: int, multiple: int, batch_slices: int
) -> Iterator[Crop]:
    """Runs of slices and the crop they share; a crop may reach beyond the image, where the input is padded."""
    for start in range(0, shape[0], CHUNK_SLICES):
        chunk = slice(start, min(start + CHUNK_SLICES, shape[0]))
        wanted = np.arange(chunk.start, chunk.stop)
        rows, columns = slice(0, shape[1]), slice(0, shape[2])
        if lung_mask is not None:
            occupied = lung_mask[chunk].any(axis=(1, 2))
            if not occupied.any():
                continue
            wanted = wanted[occupied]
            rows = _span(np.asarray(lung_mask[chunk].any(axis=(0, 2))), margin_px)
            columns = _span(np.asarray(lung_mask[chunk].any(axis=(0, 1))), margin_px)
        rows, columns = _rounded(rows, multiple), _rounded(columns, multiple)
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1):
            for first in range(run[0], run[-1] + 1, batch_slices):
                yield slice(first, min(first + batch_slices, run[-1] + 1)), rows, columns


def _span(occupied: np.ndarray, margin: int) -> slice:
    where = occupied.nonzero()[0]
    return slice(max(0, where[0] - margin), min(len(occupied), where[-1] + 1 + margin))


def _rounded(span: slice, multiple: int) -> slice:
    return slice(span.start // multiple * multiple, -(-span.stop // multiple) * multiple)


def _wanted(lung_mask: np.ndarray | None, crop: Crop) -> np.ndarray | None:
    """``lung_mask`` in the one slice of the crop, bool ``[j, i]``; nothing is wanted beyond the image."""
    if lung_mask is None:
        return None
    slices, rows, columns = crop
    inside = lung_mask[slices.start, rows, columns]
    missing = rows.stop - rows.start - inside.shape[0], columns.stop - columns.start - inside.shape[1]
    return np.pad(inside, [(0, n) for n in missing])


def _network_input(hu: np.ndarray, crop: Crop, offsets: np.ndarray, spec: InputSpec) -> np.ndarray:
    """float32 ``[batch, input slice, j, i]``; beyond the first and last slice the end slice is repeated."""
    slices, rows, columns = crop
    k = np.clip(np.arange(slices.start, slices.stop)[:, None] + offsets, 0, hu.shape[0] - 1)
    values = spec.scale(hu[k, rows, columns])
    missing_j, missing_i = rows.stop - rows.start - values.shape[2], columns.stop - columns.start - values.shape[3]
    if missing_j or missing_i:
        air = float(spec.scale(np.array(PADDING_HU)))
        values = np.pad(values, ((0, 0), (0, 0), (0, missing_j), (0, missing_i)), constant_values=air)
    return values
