"""Spoiled files of every kind that the program reads, made from good small ones by a seeded generator."""

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
import torch

from fuzzing.damage import Rng, pick, several, spoil_bytes, spoil_dicom, spoil_json, spoil_nifti, spoil_safetensors, spoil_text
from helpers.dicom_files import small_chest, write_enhanced, write_series
from helpers.threshold_model import CARD, threshold_network, write_threshold_bundle
from NLSTSegLib.models.bundle import CARD_FILE, WEIGHTS_FILE, ModelFiles

TWO_SCANS = "two-scans.txt"
"""Stands in a folder with two scans, no voxels of which may come into one volume."""

TELLING = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesDescription", "ConvolutionKernel", "KVP")
UNNEEDED = ("AcquisitionNumber", "SeriesNumber", "SliceThickness", "ImageType", "InstanceNumber")
"""What tells scans apart, and what the work does not need."""


def set_uids(file: Path, number: int) -> None:
    """The same identifiers every time, instead of random ones."""
    dataset = pydicom.dcmread(file)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2.4"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.5.{number}"
    dataset.save_as(file)


class Inputs:
    """Good files in ``folder``; :meth:`make` spoils one of them. The same number gives the same bytes each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hu = small_chest()
        image = sitk.GetImageFromArray(hu)
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-150.0, -160.0, -300.0))
        for name in ("ct.nii", "ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd"):
            sitk.WriteImage(image, str(folder / name))
        for name in ("packed.nii.gz", "packed.nrrd", "packed.mha"):
            sitk.WriteImage(image, str(folder / name), useCompression=True)
        for encoding in ("", "RLE", "JPEG", "JPEG2000"):
            for n, file in enumerate(write_series(folder / f"series{encoding}", hu[:5], encoding=encoding)):
                set_uids(file, n)
        write_enhanced(folder / "enhanced", hu[:5])
        set_uids(folder / "enhanced", 0)
        write_threshold_bundle(folder / "model")
        self.card = (folder / "model" / CARD_FILE).read_bytes()
        self.weights = (folder / "model" / WEIGHTS_FILE).read_bytes()
        stream = io.BytesIO()
        torch.save({"epoch": 3, "model_state_dict": threshold_network().state_dict()}, stream)
        self.checkpoint = stream.getvalue()
        stream = io.BytesIO()
        torch.save(threshold_network().state_dict(), stream, _use_new_zipfile_serialization=False)
        self.old_checkpoint = stream.getvalue()
        self.makers: dict[str, Callable[[Rng, Path], tuple[Path, ModelFiles | Path]]] = {
            "NIfTI": self.nifti,
            "NRRD": self.nrrd,
            "MetaImage": self.metaimage,
            "DICOM series": self.series,
            "DICOM enhanced": self.enhanced,
            "DICOM compressed": self.compressed,
            "DICOM grouping": self.two_scans,
            "model.json": self.model_card,
            "safetensors": self.safetensors,
            "checkpoint": self.pickled,
        }

    def make(self, number: int, seed: int, folder: Path) -> tuple[str, Path, ModelFiles | Path]:
        """Format, the CT and the model (a bundle's folder, or its parts) of an input, written into the new ``folder``."""
        names = list(self.makers)
        name = names[number % len(names)]
        folder.mkdir()
        ct, model = self.makers[name](np.random.default_rng([seed, number]), folder)
        return name, ct, model

    def nifti(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        data = (self.folder / "ct.nii").read_bytes()
        data = several(lambda d: spoil_nifti(d, rng), data, rng)
        if rng.random() < 0.5:
            return self.written(folder / "ct.nii", data)
        packed = gzip.compress(data, 1, mtime=0)
        return self.written(folder / "ct.nii.gz", spoil_bytes(packed, rng, len(packed)) if rng.random() < 0.2 else packed)

    def nrrd(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.text(rng, folder, ("ct.nrrd", "packed.nrrd", "ct.nhdr"), ":", b"\n\n")

    def metaimage(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.text(rng, folder, ("ct.mha", "packed.mha", "ct.mhd"), "=", b"LOCAL\n")

    def text(self, rng: Rng, folder: Path, names: tuple[str, ...], mark: str, ending: bytes) -> tuple[Path, Path]:
        name = pick(rng, names)
        data = (self.folder / name).read_bytes()
        (folder / "ct.raw").write_bytes(small_chest().tobytes())

        def spoil(spoiled: bytes) -> bytes:
            end = spoiled.find(ending)
            return spoil_text(spoiled, rng, len(spoiled) if end < 0 else end + len(ending) - 1, mark)

        data = several(spoil, data, rng)
        return self.written(folder / f"ct{Path(name).suffix}", data)

    def series(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.spoiled_series(rng, folder, "series")

    def compressed(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        return self.spoiled_series(rng, folder, f"series{pick(rng, ('RLE', 'JPEG', 'JPEG2000'))}")

    def spoiled_series(self, rng: Rng, folder: Path, name: str) -> tuple[Path, Path]:
        (folder / "ct").mkdir()
        files = sorted((self.folder / name).iterdir())
        hit = rng.permutation(len(files))[: rng.integers(1, 3)]
        for n, file in enumerate(files):
            data = file.read_bytes()
            if n in hit and name != "series" and rng.random() < 0.5:
                data = spoil_bytes(data, rng, len(data))
            elif n in hit:
                data = several(lambda d: spoil_dicom(d, rng), data, rng)
            (folder / "ct" / file.name).write_bytes(data)
        return folder / "ct", self.folder / "model"

    def enhanced(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        data = (self.folder / "enhanced").read_bytes()
        return self.written(folder / "ct", several(lambda d: spoil_dicom(d, rng), data, rng))

    def two_scans(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        """Two scans under one SeriesInstanceUID or none that differ otherwise; the voxels of one are even, of the other odd."""
        uid = pick(rng, ("1.2.3", "1.2.3", "", "1.2.3.9"))
        differs = [one for one in TELLING if rng.random() < 0.3] or [pick(rng, TELLING)]
        hu = small_chest()[:5] // 2 * 2
        start_mm = float(pick(rng, (0.0, 1.25, 12.5, 11.25, 300.0, 0.004)))
        hidden = [one for one in (*TELLING, *UNNEEDED) if rng.random() < 0.2 and one not in differs]
        for n, step in enumerate((1, int(pick(rng, (1, -1))))):
            told = {**dict.fromkeys(TELLING, "1.5"), **dict.fromkeys(differs, f"1.5{n}"), "SeriesInstanceUID": uid}
            origin = (-150.0, -160.0, -300.0 + n * start_mm)
            files = write_series(folder / "ct", (hu + n)[::step], origin_lps_mm=origin, name=f"{n}{{}}".format, **told)
            for k, file in enumerate(files):
                dataset = pydicom.dcmread(file)
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.5.1{n}{k}"
                for keyword in hidden:
                    if keyword in dataset:
                        delattr(dataset, keyword)
                dataset.save_as(file)
        (folder / "ct" / TWO_SCANS).write_text("")
        return folder / "ct", self.folder / "model"

    def model_card(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        card = spoil_json(self.card, rng)
        return self.bundle(folder, card, self.weights)

    def safetensors(self, rng: Rng, folder: Path) -> tuple[Path, Path]:
        weights = several(lambda d: spoil_safetensors(d, rng), self.weights, rng, 2)
        card = json.loads(self.card)
        card["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        return self.bundle(folder, json.dumps(card).encode("utf-8"), weights)

    def pickled(self, rng: Rng, folder: Path) -> tuple[Path, ModelFiles]:
        data = pick(rng, (self.checkpoint, self.old_checkpoint))
        data = several(lambda d: spoil_bytes(d, rng, len(d)), data, rng)
        (folder / "model.pth").write_bytes(data)
        return self.folder / "ct.nii", ModelFiles(CARD, folder / "model.pth", "file")

    def bundle(self, folder: Path, card: bytes, weights: bytes) -> tuple[Path, Path]:
        (folder / "model").mkdir()
        (folder / "model" / CARD_FILE).write_bytes(card)
        (folder / "model" / WEIGHTS_FILE).write_bytes(weights)
        return self.folder / "ct.nii", folder / "model"

    def written(self, path: Path, data: bytes) -> tuple[Path, Path]:
        path.write_bytes(data)
        return path, self.folder / "model"
