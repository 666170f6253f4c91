"""Makes the pictures of the docs: the module with the bundled model, in the bench, on the phantom and a real chest.

python docs/tools/pictures.py [FOLDER [phantom|real]]
"""

import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "Testing"), str(ROOT / "Testing" / "Python")]

from helpers.shared_data import shared_data  # noqa: E402
from slicer_stand_in import host  # noqa: E402

WINDOW = (1280, 1060)
"""Width and height of a picture in pixels."""

REAL_CHEST = "LIDC-IDRI-0001"
"""CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX; where the picture is shown, it is named."""

PATIENCE_S = 1800
"""A run takes no longer, on any computer."""

SHOWN_TIME = "20 s"
"""Every duration in the pictures: what a run takes here depends on what else the computer does. docs/performance.md has
measured ones."""

GREY_STEP = 8
"""Greys are made multiples of this: the noise of a CT makes most of the size of a picture, and nobody sees the difference."""


def take(window: Any, path: Path) -> None:
    """Write what ``window`` shows, with few greys."""
    import numpy as np
    from PIL import Image

    host.screenshot(window, path)
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    greys = np.ptp(pixels, axis=2) < GREY_STEP
    pixels[greys] = pixels[greys] // GREY_STEP * GREY_STEP + GREY_STEP // 2
    Image.fromarray(pixels).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def phantom_pictures(folder: Path) -> None:
    """One picture for each step of ``docs/tutorial.md`` that has one."""
    from NLSTSegLib.phantom.make import make_phantom
    from slicer_stand_in.messages import recorded_messages

    with module_on(make_phantom(0).ct, "Phantom") as (widget, window):
        run, lesions, export = widget.run.ui, widget.lesions.ui, widget.export.ui
        take(window, folder / "tutorial-input.png")

        host.click(widget.input.ui.acceptModelButton)
        host.click(run.applyButton)
        host.process_events(until=lambda: run.progressBar.value > 0.4 * run.progressBar.maximum, timeout_s=PATIENCE_S)
        take(window, folder / "tutorial-run.png")

        host.process_events(until=lambda: not widget.run.is_running, timeout_s=PATIENCE_S)
        take(window, folder / "module.png")

        # The second and the third mark are the hila.
        for key in "ARRAA":
            host.press_key(lesions.lesionTable, key)
        take(window, folder / "tutorial-review.png")

        host.click(lesions.rulersCheckBox)
        lesions.thresholdSlider.value += 10
        take(window, folder / "tutorial-grow.png")
        host.click(lesions.rulersCheckBox)

        # The panel shows where the review went: "reviews", not a folder of this computer.
        with TemporaryDirectory() as scratch, chdir(scratch), recorded_messages() as talk:
            Path("reviews").mkdir()
            talk.answer(True, "reviews")
            host.click(export.reviewButton)
            take(window, folder / "tutorial-export.png")


def real_picture(folder: Path) -> None:
    """One of a real chest, where it is there."""
    from NLSTSegLib.reading.read import read_ct

    data = shared_data()
    if data is None:
        print(f"real-chest.png stays as it is: {REAL_CHEST} is not here")
        return
    with module_on(read_ct(data / "ct" / REAL_CHEST / "dicom"), REAL_CHEST) as (widget, window):
        if widget.input.ui.acceptModelButton.isVisible():
            host.click(widget.input.ui.acceptModelButton)
        host.click(widget.run.ui.applyButton)
        host.process_events(until=lambda: not widget.run.is_running, timeout_s=PATIENCE_S)
        take(window, folder / "real-chest.png")


@contextmanager
def module_on(ct: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """The module with a CT chosen, and its window."""
    import slicer

    from NLSTSegLib.scene.volumes import volume_node_of_ct

    volume = volume_node_of_ct(ct, slicer.mrmlScene, name)
    widget = host.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    with host.beside_views(widget, ("Red", "Green"), WINDOW) as window:
        slicer.util.resetSliceViews()
        widget.input.select_volume(volume)
        yield widget, window


def main() -> None:
    """Write the pictures into the folder that was given, or into the docs; with "phantom" or "real" after it these alone."""
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    with (
        host.application(),
        mock.patch("NLSTSegLib.widgets.run_panel.duration_text", return_value=SHOWN_TIME),
        # Behind other work on a busy computer a run would take for ever.
        mock.patch("NLSTSegLib.jobs.child_process._be_nice"),
    ):
        for name, make in {"phantom": phantom_pictures, "real": real_picture}.items():
            if name in (sys.argv[2:] or [name]):
                make(folder)


if __name__ == "__main__":
    main()
