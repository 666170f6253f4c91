"""Makes the pictures of the docs: the module on the phantom with the bundled model, in the bench.

python Testing/slicer_stand_in/pictures.py [FOLDER]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "Testing")]

from slicer_stand_in import host  # noqa: E402

WINDOW = (1280, 1060)
"""Width and height of a picture in pixels."""

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


def zoom(view: str, factor: float) -> None:
    """Show a part of what the slice view shows, about its middle."""
    import slicer

    node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
    width_mm, height_mm, depth_mm = node.GetFieldOfView()
    node.SetFieldOfView(width_mm / factor, height_mm / factor, depth_mm)


def make_pictures(folder: Path) -> None:
    """One picture for each step of ``docs/tutorial.md`` that has one."""
    import slicer

    from NLSTSegLib.phantom.make import make_phantom
    from NLSTSegLib.scene.volumes import volume_node_of_ct
    from slicer_stand_in.messages import recorded_messages

    volume = volume_node_of_ct(make_phantom(0).ct, slicer.mrmlScene, "Phantom")
    widget = host.open_module(ROOT / "NLSTSeg" / "NLSTSeg.py")
    run, lesions, export = widget.run.ui, widget.lesions.ui, widget.export.ui
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    with host.beside_views(widget, ("Red", "Green"), WINDOW) as window:
        slicer.util.resetSliceViews()
        widget.input.select_volume(volume)
        take(window, folder / "tutorial-input.png")

        host.click(widget.input.ui.acceptModelButton)
        host.click(run.applyButton)
        host.process_events(until=lambda: run.progressBar.value > 0.4 * run.progressBar.maximum, timeout_s=120)
        take(window, folder / "tutorial-run.png")

        host.process_events(until=lambda: not widget.run.is_running, timeout_s=300)
        host.press_key(lesions.lesionTable, "N")
        take(window, folder / "module.png")

        host.click(*slicer.util.findChildren(widget.parent, text="CT and model"))
        for key in "ARRAA":
            host.press_key(lesions.lesionTable, key)
        take(window, folder / "tutorial-review.png")

        for view in ("Red", "Green"):
            zoom(view, 3)
        host.click(lesions.rulersCheckBox)
        lesions.thresholdSlider.value += 25
        take(window, folder / "tutorial-grow.png")

        with TemporaryDirectory(prefix="reviews-") as reviews, recorded_messages() as talk:
            talk.answer(reviews)
            host.click(export.reviewButton)
            take(window, folder / "tutorial-export.png")


def main() -> None:
    """Write the pictures into the folder that was given, or into the docs."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    with host.application():
        make_pictures(folder)


if __name__ == "__main__":
    main()
