"""Segment one CT and print its lesions.

    python segment_one.py CT RESULT [MODEL]

CT is a DICOM folder or a NIfTI, NRRD, MHA or MHD file; RESULT is a new folder. MODEL is a model's name, or the path of a
bundle or a checkpoint.
"""

import sys

from NLSTSegLib import NLSTSegError, find_model, load_model, read_ct, segment, write_result


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if len(arguments) not in (2, 3):
        print("Give the CT, a folder for the result, and a model if it is not the bundled one.")
        return 2
    try:
        model = load_model(find_model(*arguments[2:]))
        result = segment(read_ct(arguments[0]), model)
        write_result(result, arguments[1])
    except NLSTSegError as error:
        print(error)
        return error.exit_code
    for row in result.to_rows():
        print(
            f"{row['lesion']}: {row['long_axis_mm']} x {row['short_axis_mm']} mm, {row['volume_mm3']} mm3, score {row['score']}"
        )
    print(f"{len(result.lesions)} lesions above {result.threshold:g}; {result.card.intended_use}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
