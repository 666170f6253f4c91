"""The phantom CT and its truth as files."""

from __future__ import annotations

import csv
from pathlib import Path

from NLSTSegLib.disk.atomic_folder import atomic_folder, held, prepare_place
from NLSTSegLib.errors import InputError
from NLSTSegLib.lesions.measure import round_half_up
from NLSTSegLib.phantom.make import Phantom
from NLSTSegLib.reading.write import write_image

CT_FILE, TRUTH_FILE, TABLE_FILE = PHANTOM_FILES = ("ct.nrrd", "truth.nrrd", "lesions.csv")

COLUMNS = ("lesion", "kind", "diameter_mm", "solid_diameter_mm", "centre_l_mm", "centre_p_mm", "centre_s_mm", "hu")
"""Columns of the phantom's ``lesions.csv``."""


def check_phantom_folder(folder: Path) -> None:
    """Raise :class:`InputError` unless a phantom can go to ``folder``: new or empty."""
    if prepare_place(folder):
        raise InputError(f"the folder '{folder}' is there already and not empty; choose another name")


BASELINE_FOLDER, FOLLOWUP_FOLDER = "baseline", "followup"
"""Folders of a phantom with its second time point."""


def write_follow_up(first: Phantom, second: Phantom, folder: Path) -> None:
    """Write both time points of a phantom, each a folder as :func:`write_phantom` makes it, into a new or empty folder.

    Raises what that raises.
    """
    with held(folder):
        check_phantom_folder(folder)
        with atomic_folder(folder) as partial:
            write_phantom(first, partial / BASELINE_FOLDER)
            write_phantom(second, partial / FOLLOWUP_FOLDER)


def write_phantom(phantom: Phantom, folder: Path) -> None:
    """Write ``ct.nrrd``, ``truth.nrrd`` (label n is lesion n) and ``lesions.csv`` into a new or empty folder.

    Raises :class:`InputError` when the folder holds anything or cannot be written; nothing is left half written.
    """
    with held(folder):
        check_phantom_folder(folder)
        with atomic_folder(folder) as partial:
            write_image(phantom.ct.to_image(), partial / CT_FILE)
            write_image(phantom.ct.image_like(phantom.labels), partial / TRUTH_FILE)
            with open(partial / TABLE_FILE, "w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(COLUMNS)
                for lesion in phantom.lesions:
                    sizes = (round_half_up(value, 3) for value in (lesion.diameter_mm, lesion.solid_diameter_mm))
                    centre = (round_half_up(value, 1) for value in lesion.centre_lps_mm)
                    table.writerow([lesion.label, lesion.kind, *sizes, *centre, lesion.hu])
