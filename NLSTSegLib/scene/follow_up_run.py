"""What a comparison of two CTs takes, in child processes: the model on each CT that has no review yet, then the registration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.followup.registration_files import read_registration
from NLSTSegLib.jobs.command_job import CommandJob
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.segment_job import write_ct
from NLSTSegLib.scene.run import SceneRun, program_python
from NLSTSegLib.scene.volumes import ct_from_volume_node

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

CT_FILES, RESULT_FOLDER = ("baseline.nrrd", "followup.nrrd"), "registration"

MODEL_SHARE = 2.0
"""A run of the model takes about so many times as long as the registration; for the progress alone."""


class RegistrationRun(CommandJob):
    """``nlstseg register`` on the CTs of two volume nodes."""

    def __init__(self, volume_nodes: Sequence[vtkMRMLScalarVolumeNode]) -> None:
        """Copy the CTs out and start the child. Raises :class:`InputError` where this cannot be done; nothing is left then."""
        super().__init__()
        try:
            files = [self.folder / name for name in CT_FILES]
            for node, file in zip(volume_nodes, files, strict=True):
                write_ct(ct_from_volume_node(node), file)
            output = str(self.folder / RESULT_FOLDER)
            self.start(["register", *map(str, files), "-o", output, "--json-progress"], program_python())
        except BaseException:
            self.close()
            raise

    def finish(self) -> Registration:
        """The registration of the ended run. Raises :class:`InputError` with the child's error."""
        if self.error:
            raise InputError(self.error)
        return read_registration(self.folder / RESULT_FOLDER)


class FollowUpRun:
    """Everything that a comparison of two CTs takes, one child process after the other; :meth:`update` looks how far it is.

    ``registration`` is there once it has ended. ``volume_node`` is that of the CT on which the model runs just now, ``None``
    while the two are registered. Used from one thread.
    """

    def __init__(
        self,
        volume_nodes: Sequence[vtkMRMLScalarVolumeNode],
        to_segment: Sequence[vtkMRMLScalarVolumeNode],
        options: RunOptions,
        on_result: Callable[[vtkMRMLSegmentationNode, vtkMRMLScalarVolumeNode], None],
    ) -> None:
        """Start. ``on_result`` gets the segmentation under review, and its CT, of each one of ``to_segment``.

        Raises :class:`InputError` when the first step cannot begin.
        """
        self.volume_nodes = tuple(volume_nodes)
        self.volume_node: vtkMRMLScalarVolumeNode | None = None
        self.registration: Registration | None = None
        self._waiting, self._options, self._on_result = list(to_segment), options, on_result
        self._total, self._done = 1 + MODEL_SHARE * len(self._waiting), 0.0
        self._model: SceneRun | None = None
        self._register: RegistrationRun | None = None
        self._begin()

    @property
    def fraction(self) -> float:
        """0 to 1, at the last :meth:`update`."""
        now = MODEL_SHARE * self._model.child.fraction if self._model else self._register.fraction if self._register else 0.0
        return (self._done + now) / self._total

    def update(self) -> bool:
        """Look how far it is, and begin the next step where one has ended; whether all have.

        Raises :class:`InputError` for whatever went wrong; it is closed then, and reviews that were made stay.
        """
        try:
            if self._model is not None and self._model.child.update():
                run, self._model = self._model, None
                node = run.finish()
                self._done += MODEL_SHARE
                self._on_result(node, run.volume_node)
                self._begin()
            elif self._register is not None and self._register.update():
                self.registration = self._register.finish()
                self.close()
        except BaseException:
            self.close()
            raise
        return self.registration is not None

    def close(self) -> None:
        """End what runs, and remove its files; once more does nothing."""
        if self._model is not None:
            self._model.cancel()
        if self._register is not None:
            self._register.close()
        self._model = self._register = None

    def _begin(self) -> None:
        if any(node.GetScene() is None for node in self.volume_nodes):
            raise InputError("a CT of the comparison is no longer in the scene; choose two CTs again")
        self.volume_node = self._waiting.pop(0) if self._waiting else None
        if self.volume_node is not None:
            self._model = SceneRun(self.volume_node, self._options)
        else:
            self._register = RegistrationRun(self.volume_nodes)
