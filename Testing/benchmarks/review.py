"""How fast the review answers, with many marks on a whole chest and a mass of 160 ml: ``python Testing/benchmarks/review.py``.

The panel is opened in the stand-in of Slicer, beside two slice views; every figure is the median of a few rounds, from the
click to the drawn window.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
sys.path += [str(TESTING.parent), str(TESTING), str(TESTING / "Python")]

from slicer_stand_in import host  # noqa: E402
from slicer_stand_in.messages import recorded_messages  # noqa: E402

SHAPE_KJI, SPACING_IJK_MM = (300, 512, 512), (0.7, 0.7, 1.25)

MASS_RADIUS_MM = 33.7
"""Of 160 ml."""


def balls(marks: int) -> list:
    """A mass and small marks on a lattice."""
    from helpers.review_scene import Ball

    found = [Ball((400, 256, 60), MASS_RADIUS_MM)]
    for k in range(130, 290, 30):
        for j in range(60, 460, 100):
            for i in range(60, 460, 100):
                found.append(Ball((i, j, k), 3.0 + (i + j + k) % 5))
    return found[:marks]


def ct_and_result(marks: int):
    """A CT, and what a sure model finds on it."""
    import numpy as np

    from helpers.example_results import result_for
    from NLSTSegLib.volume.ct import CtVolume

    hu = np.full(SHAPE_KJI, -800, np.int16)
    spacing_kji = SPACING_IJK_MM[::-1]
    for ball in balls(marks):
        reach = [int(ball.radius_mm / s) + 1 for s in spacing_kji]
        box = tuple(slice(c - r, c + r + 1) for c, r in zip(ball.centre_ijk[::-1], reach, strict=True))
        grids = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
        hu[box][sum((g * s) ** 2 for g, s in zip(grids, spacing_kji, strict=True)) <= ball.radius_mm**2] = 40
    ct = CtVolume(hu, SPACING_IJK_MM, (-180.0, -180.0, -300.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return ct, result_for(ct)


def measure(marks: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of everything that a reader waits for: on the clock, and of the processor, which other work does not lengthen."""
    import slicer

    from helpers.review_scene import begin
    from NLSTSegLib.scene.volumes import volume_node_of_ct

    ct, result = ct_and_result(marks)
    widget = host.open_module(TESTING.parent / "NLSTSeg" / "NLSTSeg.py")
    volume = volume_node_of_ct(ct, slicer.mrmlScene, "Chest")
    node = begin(result, volume)
    panel, ui = widget.lesions, widget.lesions.ui
    found: dict[str, list[tuple[float, float]]] = {}

    def note(what: str, act: Callable[[], object]) -> None:
        start_s, used_s = time.perf_counter(), time.process_time()
        act()
        host.process_events(until=lambda: not panel._gather.active)
        found.setdefault(what, []).append((time.perf_counter() - start_s, time.process_time() - used_s))

    with host.beside_views(widget, ("Red", "Green"), (1280, 900)):
        slicer.util.resetSliceViews()
        widget.input.select_volume(volume)
        for _ in range(rounds):
            widget.segmentations.select(None)
            host.process_events()
            note("show all lesions", lambda: widget.segmentations.select(node))
        for _ in range(2 * rounds):
            note("next lesion (N)", lambda: host.press_key(ui.lesionTable, "N"))
        for _ in range(2 * rounds):
            note("accept (A)", lambda: host.press_key(ui.lesionTable, "A"))
        for _ in range(rounds):
            note("undo", lambda: host.click(ui.undoButton))
        panel._go_to(panel._table.ids[0])
        for step in range(2 * rounds):
            note("slider, mass of 160 ml", lambda step=step: setattr(ui.thresholdSlider, "value", 50 + step))
        for _ in range(rounds):
            note("next lesion from the mass", lambda: host.press_key(ui.lesionTable, "N"))
            note("back to the mass", lambda: host.press_key(ui.lesionTable, "P"))
        with tempfile.TemporaryDirectory() as folder, recorded_messages() as talk:
            talk.answer(True, folder)
            note("export", lambda: host.click(widget.export.ui.reviewButton))
    return {
        what: (statistics.median(clock for clock, _used in pairs), statistics.median(used for _clock, used in pairs))
        for what, pairs in found.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marks", type=int, default=67)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with host.application():
        for what, (clock_s, used_s) in measure(options.marks, options.rounds).items():
            print(f"{what:28} {clock_s:6.2f} s, {used_s:6.2f} s of the processor")


if __name__ == "__main__":
    main()
