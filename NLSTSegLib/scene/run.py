"""A run of the model on a volume node, in a child process, and its result as a segmentation under review."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.diagnostics import CtFacts
from NLSTSegLib.jobs.options import RunOptions
from NLSTSegLib.jobs.segment_job import ChildRun
from NLSTSegLib.progress import Progress, silent
from NLSTSegLib.results.saved import SavedResult, read_result
from NLSTSegLib.scene.review import start_review
from NLSTSegLib.scene.segmentations import check_empty, segmentation_from_result
from NLSTSegLib.scene.volumes import ct_from_volume_node

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

POLL_S = 0.1
"""Seconds between two looks at the child."""


def program_python() -> str:
    """The Python that runs the child: Slicer's own launcher of it inside the application, else the one that runs now.

    Raises :class:`InputError` when Slicer's is missing.
    """
    if "PythonQt" not in sys.modules:
        return sys.executable
    # In the application sys.executable may be the application itself.
    python = shutil.which("PythonSlicer")
    if python is None:
        raise InputError("PythonSlicer, which comes with 3D Slicer, is not found; install 3D Slicer again")
    return python


class SceneRun:
    """A run on the CT of a volume node. ``child`` tells how far it is; the scene is not touched before :meth:`finish`."""

    def __init__(self, volume_node: vtkMRMLScalarVolumeNode, options: RunOptions) -> None:
        """Copy the CT out and start the child. Raises :class:`InputError` when the volume is no CT or this cannot be done."""
        self.volume_node = volume_node
        self.options = options
        self.volume_name: str = volume_node.GetName()
        self._scene = volume_node.GetScene()
        if self._scene is None:
            raise InputError(f"the volume '{self.volume_name}' is in no scene; add it to one first")
        ct = ct_from_volume_node(volume_node)
        self.ct_facts = CtFacts.of(ct)
        self.child = ChildRun(ct, options, program_python())
        self.result: SavedResult | None = None
        """Result of the finished run."""

    @property
    def volume_is_there(self) -> bool:
        """Whether the volume is still in the scene; a closed scene holds none."""
        return self.volume_node.GetScene() is self._scene

    def finish(self, segmentation_node: vtkMRMLSegmentationNode | None = None) -> vtkMRMLSegmentationNode:
        """Put the result of the ended run under review and remove the run's files.

        The lesions go into ``segmentation_node``, which must be empty, or into a new node. Raises :class:`InputError` with
        the child's ``error``, or when the volume is gone or has another grid now; the scene is as before then.
        """
        try:
            if self.child.error:
                raise InputError(self.child.error)
            if not self.volume_is_there:
                raise InputError(f"the CT '{self.volume_name}' is no longer in the scene, so its lesions have no place")
            self.result = read_result(self.child.result_folder)
        finally:
            self.child.close()
        node = segmentation_from_result(self.result, self.volume_node, segmentation_node=segmentation_node)
        start_review(
            node,
            self.volume_node,
            probability=self.result.probability,
            card=self.result.card,
            threshold=self.result.threshold,
            min_volume_mm3=self.result.min_volume_mm3,
            lungs=self.result.lungs,
        )
        return node

    def cancel(self) -> None:
        """Kill the child with all that it started and remove the run's files; once more does nothing."""
        self.child.kill()
        self.child.close()


def run_and_wait(
    volume_node: vtkMRMLScalarVolumeNode,
    segmentation_node: vtkMRMLSegmentationNode | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> vtkMRMLSegmentationNode:
    """Run the model on a volume and wait for the segmentation, which is ``segmentation_node`` or a new node.

    ``progress(fraction, stage)`` is called every :data:`POLL_S` and stops the run by raising. Raises :class:`InputError` with
    one sentence for whatever goes wrong; the scene is as before then.
    """
    progress = progress or silent
    if segmentation_node is not None:
        check_empty(segmentation_node, volume_node)
    run = SceneRun(volume_node, options or RunOptions())
    try:
        while not run.child.update():
            progress(run.child.fraction, run.child.stage)
            time.sleep(POLL_S)
        progress(run.child.fraction, run.child.stage)
        return run.finish(segmentation_node)
    finally:
        run.cancel()
