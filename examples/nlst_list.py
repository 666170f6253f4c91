"""Make the list of cases of NLST for ``nlstseg cohort``, from the metadata.csv that its download brings along.

    python nlst_list.py DOWNLOAD LIST

DOWNLOAD is the folder into which the NBIA Data Retriever has put the collection NLST of The Cancer Imaging Archive, with its
metadata.csv; LIST is the CSV file to write. A case is a patient (Subject ID) and a date (Study Date), of which the thinnest, i.e.
largest, CT series is taken: of several reconstructions with as many images, the first. Then

    nlstseg cohort LIST --output cohort --dry-run
"""

import csv
import sys
from pathlib import Path

COLUMNS = ("id", "path", "patient", "date", "series")


def cases(metadata: list[dict[str, str]], download: Path) -> list[dict[str, str]]:
    """One row of the list for every study, in the order of patients and dates."""
    best: dict[tuple[str, str], dict[str, str]] = {}
    for row in metadata:
        if row["Modality"] != "CT":
            continue
        study = (row["Subject ID"], row["Study Date"])
        if study not in best or int(row["Number of Images"]) > int(best[study]["Number of Images"]):
            best[study] = row
    listed = []
    for (patient, date), row in sorted(best.items()):
        # "./NLST/100002/..." with the separators of the system on which it was loaded.
        path = download / row["File Location"].replace("\\", "/")
        name = f"{patient}-{date.replace('/', '-')}"
        listed.append(dict(zip(COLUMNS, (name, str(path), patient, date, row["Series UID"]), strict=True)))
    return listed


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if len(arguments) != 2:
        print("Give the folder of the download, and the CSV file to write.")
        return 2
    download = Path(arguments[0]).resolve()
    with open(download / "metadata.csv", newline="", encoding="utf-8-sig") as file:
        listed = cases(list(csv.DictReader(file)), download)
    with open(arguments[1], "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(listed)
    print(f"{len(listed)} CTs in {arguments[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
