"""From HU voxels to a probability volume: a 2D or 2.5D network over the slices of the lung field."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from NLSTSegLib.errors import is_out_of_memory
from NLSTSegLib.inference.devices import PLAIN_CPU, Device, to_device, to_host
from NLSTSegLib.models.specs import MAXIMUM_MARGIN_PX, InputSpec
from NLSTSegLib.volume.ct import PADDING_HU, CtVolume

if TYPE_CHECKING:
    import torch

    from NLSTSegLib.networks.network import Network

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
    network: Network,
    spec: InputSpec,
    ct: CtVolume,
    lung_mask: np.ndarray | None = None,
    *,
    device: Device = PLAIN_CPU,
    batch_slices: int = 1,
    progress: Callable[[float], None] | None = None,
    smaller_batch: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Probability of lesion per voxel, uint8 ``[k, j, i]`` (255 is 1), of a canonical ``ct``.

    ``network`` (evaluating, placed on ``device``) says how it is run (:class:`NLSTSegLib.networks.network.Network`). Slices
    without ``lung_mask`` (boolean, the CT's shape) are skipped and stay 0; the others are cropped to it plus
    ``spec.margin_px``, where the network takes crops. ``progress(fraction)`` is called after every batch and may raise to
    stop. The network runs in worker threads (:data:`MAXIMUM_WORKERS`), so the calling thread prepares what follows and stays
    open to interrupts. Where the memory does not hold ``batch_slices`` at once, fewer are tried, down to one, and
    ``smaller_batch(slices)`` is told; what torch raises when it does not hold one is passed on. Raises ``OverflowError``
    where float16 does not hold the network's numbers.
    """
    import torch

    probability = np.zeros(ct.hu.shape, np.uint8)
    offsets = spec.slice_offsets(ct.spacing_ijk_mm[2])
    margin_px = spec.margin_px if network.takes_crops else MAXIMUM_MARGIN_PX
    batches = list(_batches(ct.hu.shape, lung_mask, margin_px, max(CROP_MULTIPLE, network.side_multiple), batch_slices))
    work = ((crop, _network_input(ct.hu, crop, offsets, spec), _in_crop(lung_mask, crop)) for crop in batches)
    runner = _Runner(network, device, batch_slices, smaller_batch)
    threads = torch.get_num_threads()
    workers = _workers(threads) if device.name == "cpu" else 1
    # A new thread would start with torch's own number of threads.
    executor = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    try:
        for done, (crop, future) in enumerate(_in_order(executor, workers, runner.run, work), start=1):
            _store(probability, crop, future)
            if progress is not None:
                progress(done / len(batches))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        # What a worker has set holds for every thread to come.
        torch.set_num_threads(threads)
    return probability


class _Runner:
    """The network on a batch: as a whole, or in the parts that the memory holds."""

    def __init__(self, network: Network, device: Device, at_once: int, smaller_batch: Callable[[int], None] | None) -> None:
        self.network, self.device, self.at_once, self.smaller_batch = network, device, at_once, smaller_batch

    def run(self, batch: np.ndarray, lung_mask: np.ndarray) -> list[Answer]:
        """Probabilities (uint8 ``[slice, j, i]``), part by part."""
        import torch

        done: list[Answer] = []
        while len(batch):
            at_once = self.at_once
            try:
                done.append(self._answer(batch[:at_once], lung_mask[:at_once]))
                batch, lung_mask = batch[at_once:], lung_mask[at_once:]
                continue
            except (MemoryError, RuntimeError) as error:
                self.at_once = min(at_once, len(batch)) // 2
                if not self.at_once or not is_out_of_memory(error):
                    raise
            # Here, since the error held what the attempt had taken.
            if torch.device(self.device.name).type != "cpu":
                torch.get_device_module(self.device.name).empty_cache()
            if self.smaller_batch is not None:
                self.smaller_batch(self.at_once)
        return done

    def _answer(self, batch: np.ndarray, lung_mask: np.ndarray) -> Answer:
        import torch

        with torch.inference_mode():
            logits = self.network.answer(to_device(batch, self.device), lung_mask)
            return arriving(torch.sigmoid(logits.float()).mul_(255).round_().to(torch.uint8)[:, 0], logits)


def _in_order(
    executor: ThreadPoolExecutor,
    workers: int,
    run: Callable[[np.ndarray, np.ndarray], list[Answer]],
    work: Iterable[tuple[Crop, np.ndarray, np.ndarray]],
) -> Iterator[tuple[Crop, Future[list[Answer]]]]:
    """What becomes of each crop. One batch waits while others run: the network never does, and memory holds few."""
    running: deque[tuple[Crop, Future[list[Answer]]]] = deque()
    for crop, batch, lung_mask in work:
        running.append((crop, executor.submit(run, batch, lung_mask)))
        if len(running) > workers:
            yield running.popleft()
    while running:
        yield running.popleft()


def _workers(threads: int) -> int:
    """Workers that leave the fewest of the threads idle."""
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
        with_lung = np.arange(chunk.start, chunk.stop)
        rows, columns = slice(0, shape[1]), slice(0, shape[2])
        if lung_mask is not None:
            occupied = lung_mask[chunk].any(axis=(1, 2))
            if not occupied.any():
                continue
            with_lung = with_lung[occupied]
            rows = _span(np.asarray(lung_mask[chunk].any(axis=(0, 2))), margin_px)
            columns = _span(np.asarray(lung_mask[chunk].any(axis=(0, 1))), margin_px)
        rows, columns = _rounded(rows, multiple), _rounded(columns, multiple)
        for run in np.split(with_lung, np.flatnonzero(np.diff(with_lung) > 1) + 1):
            for first in range(run[0], run[-1] + 1, batch_slices):
                yield slice(first, min(first + batch_slices, run[-1] + 1)), rows, columns


def _span(occupied: np.ndarray, margin: int) -> slice:
    indices = occupied.nonzero()[0]
    return slice(max(0, indices[0] - margin), min(len(occupied), indices[-1] + 1 + margin))


def _rounded(span: slice, multiple: int) -> slice:
    return slice(span.start // multiple * multiple, -(-span.stop // multiple) * multiple)


def _in_crop(lung_mask: np.ndarray | None, crop: Crop) -> np.ndarray:
    """``lung_mask`` in the crop, bool ``[slice, j, i]``: nothing beyond the image; all of the crop without one."""
    inside = np.full([side.stop - side.start for side in crop], lung_mask is None)
    if lung_mask is not None:
        part = lung_mask[crop]
        inside[:, : part.shape[1], : part.shape[2]] = part
    return inside


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
