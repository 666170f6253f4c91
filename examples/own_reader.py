"""Segment CTs from a format of your own: here NumPy's .npz with the voxels and the place of the grid.

    python own_reader.py FILE.npz RESULT

FILE.npz holds ``hu`` (HU, [k, j, i]), ``spacing_ijk_mm``, ``origin_lps_mm`` and ``direction_lps`` (nine numbers row by row, the
columns are the directions of i, j and k in the patient). All that a reader must do is to make a CtVolume; the library checks it.
"""

import sys
from pathlib import Path

import numpy as np

from NLSTSegLib import CtVolume, InputError, NLSTSegError, find_model, load_model, segment, write_result


def read_npz(path: Path) -> CtVolume:
    """The CT in ``path``; raises :class:`InputError` when it is no such file."""
    try:
        # No pickles: a file of arrays cannot run code.
        with np.load(path, allow_pickle=False) as stored:
            return CtVolume(
                hu=stored["hu"].astype(np.int16),
                spacing_ijk_mm=tuple(stored["spacing_ijk_mm"].tolist()),
                origin_lps_mm=tuple(stored["origin_lps_mm"].tolist()),
                direction_lps=tuple(stored["direction_lps"].ravel().tolist()),
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"'{path}' is no CT in .npz: {error}") from error


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if len(arguments) != 2:
        print("Give the file with the CT, and a folder for the result.")
        return 2
    try:
        result = segment(read_npz(Path(arguments[0])), load_model(find_model()))
        write_result(result, arguments[1])
    except NLSTSegError as error:
        print(error)
        return error.exit_code
    print(f"{len(result.lesions)} lesions written to {arguments[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
