"""Segment every chest CT of a folder in 3D Slicer, without its window, and write a folder with the lesions of each.

    Slicer --no-splash --no-main-window --python-script examples/batch_folder.py INPUT OUTPUT [MODEL]

INPUT holds the CTs: NIfTI, NRRD or MHA/MHD files, and a folder for every DICOM series. OUTPUT gets a folder for each,
named after it, with lesions.csv, audit.csv, the label map and segmentation.seg.nrrd. What is there already is skipped, so
the same call goes on where an earlier one was stopped. MODEL is a model's name, or the path of a bundle or a checkpoint.
A CT that fails costs one line. Exit code: 0 when all are done, 1 when some failed, 2 for a wrong call.

PyTorch must be installed in Slicer: press Apply in the module once.
"""

import sys
import traceback
from functools import partial
from pathlib import Path

import slicer

from NLSTSeg import NLSTSegLogic
from NLSTSegLib.checks.preflight import check_ct, stop_on_errors
from NLSTSegLib.errors import InputError, NLSTSegError
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.reading.image_file import FORMATS
from NLSTSegLib.reading.read import read_ct
from NLSTSegLib.review.folder import check_new_folder, write_review
from NLSTSegLib.scene.segmentation_file import write_segmentation_node
from NLSTSegLib.scene.sizes import reviewed_case
from NLSTSegLib.scene.volumes import volume_node_of_ct
from NLSTSegLib.volume.regular_grid import slice_stack


def segment_one(path: Path, folder: Path, options: RunOptions) -> int:
    """Write the lesions of the CT at ``path`` into ``folder``; returns how many there are."""
    check_new_folder(folder)
    ct = read_ct(path)
    stop_on_errors(check_ct(ct))
    if slice_stack(ct).is_uneven:
        raise InputError("its slices lie unevenly, which a volume node cannot hold; use 'nlstseg segment'")
    volume = volume_node_of_ct(ct, slicer.mrmlScene, path.name)
    segmentation = NLSTSegLogic().process(volume, options=options)
    case = reviewed_case(segmentation)
    write_review(case, folder, partial(write_segmentation_node, segmentation))
    return len(case.lesions)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if len(arguments) not in (2, 3) or not Path(arguments[0]).is_dir():
        print("Give the folder with the CTs, the folder for the results, and a model if it is not the bundled one.")
        return 2
    options = RunOptions(model=arguments[2]) if len(arguments) == 3 else RunOptions()
    paths = [p for p in sorted(Path(arguments[0]).iterdir()) if p.is_dir() or p.name.lower().endswith(tuple(FORMATS))]
    failed = 0
    for number, path in enumerate(paths, start=1):
        folder = Path(arguments[1]) / path.name
        try:
            said = "is there already" if folder.exists() else f"{segment_one(path, folder, options)} lesions"
        except NLSTSegError as error:
            failed, said = failed + 1, f"failed: {error}"
        except Exception as error:
            # What nobody thought of must not cost the other CTs.
            traceback.print_exc()
            failed, said = failed + 1, f"failed: {type(error).__name__}: {error}"
        slicer.mrmlScene.Clear()
        print(f"{number}/{len(paths)} {path.name}: {said}", flush=True)
    print(f"{len(paths)} CTs, {failed} failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        exit_code = main([argument for argument in sys.argv[1:] if argument != "--"])
    except Exception:
        traceback.print_exc()
        exit_code = 1
    # Without this Slicer would stay, with no window to close.
    sys.exit(exit_code)
