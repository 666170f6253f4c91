"""A segmentation in a child process: what it is asked for, how long it still takes, and where its result lies."""

from __future__ import annotations

from pathlib import Path

from NLSTSegLib.disk.number_locale import point_in_numbers
from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.command_job import CommandJob
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.remaining import RemainingTime
from NLSTSegLib.volume.ct import CtVolume

CT_FILE, RESULT_FOLDER = "ct.nrrd", "result"
"""Names in the scratch folder of the run: what goes in and what comes out."""


class ChildRun(CommandJob):
    """``nlstseg segment`` on a CT; ``remaining_s`` is ``None`` as long as it cannot be told."""

    def __init__(self, ct: CtVolume, options: RunOptions, python: str) -> None:
        """Write the CT and start. Raises :class:`InputError` when either cannot be done; nothing is left then."""
        super().__init__()
        self.remaining_s: float | None = None
        self._remaining = RemainingTime()
        try:
            file = self.folder / CT_FILE
            write_ct(ct, file)
            arguments = ["segment", str(file), "-o", str(self.result_folder), "--save-probability", "--json-progress"]
            self.start([*arguments, *options.arguments()], python)
        except BaseException:
            self.close()
            raise

    @property
    def result_folder(self) -> Path:
        """Where the result lies after a run without error, until :meth:`close`."""
        return self.folder / RESULT_FOLDER

    def update(self) -> bool:
        """Look how far the run is; whether it has ended."""
        has_ended = super().update()
        self.remaining_s = self._remaining.at(self.elapsed_s)
        return has_ended

    def _read(self, line: str) -> None:
        before = self.fraction, self.stage
        super()._read(line)
        if (self.fraction, self.stage) != before:
            self._remaining.add(self.fraction, self.elapsed_s)


def write_ct(ct: CtVolume, file: Path) -> None:
    """Write the CT for a child to read. Raises :class:`InputError` where the disk does not take it."""
    import SimpleITK as sitk

    try:
        # Packing it would take longer than the disk does.
        with point_in_numbers():
            sitk.WriteImage(ct.to_image(), str(file), useCompression=False)
    except RuntimeError as error:
        raise InputError(
            "the CT cannot be written to the disk for temporary files, which may be full; make room there and try again"
        ) from error
