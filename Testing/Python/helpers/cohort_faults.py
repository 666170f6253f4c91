"""Cases that do harm, for workers of a cohort: Dask loads this file in every worker that the environment names it to.

The HU of a CT's first voxel says what its segmentation does before it goes on.
"""

import os
import time
from pathlib import Path

from helpers.child_processes import wait_until
from NLSTSegLib.results import run

PRELOAD = {"DASK_DISTRIBUTED__WORKER__PRELOAD": '["helpers.cohort_faults"]'}

GATE_VARIABLE = "COHORT_GATE"
"""Names a folder: what a gated case writes there, and waits for."""

STARTED, OPEN, ROOM = "started", "open", "room"

HANGS_HU, EATS_MEMORY_HU, GATED_HU, FULL_DISK_HU = -3001, -3002, -3003, -3004

EATEN_BYTES = 64 << 20


def dask_setup(worker: object) -> None:
    """Called by Dask when the worker starts."""
    real = run.segment

    def segment(ct, *arguments):
        gate = Path(os.environ[GATE_VARIABLE])
        first_hu = int(ct.hu[0, 0, 0])
        if first_hu == HANGS_HU:
            time.sleep(1e6)
        elif first_hu == EATS_MEMORY_HU:
            eaten = []
            while True:
                eaten.append(b"x" * EATEN_BYTES)
                time.sleep(0.1)
        elif first_hu == GATED_HU:
            (gate / STARTED).touch()
            wait_until((gate / OPEN).exists, "the gate opens")
        elif first_hu == FULL_DISK_HU and not (gate / ROOM).exists():
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")
        return real(ct, *arguments)

    run.segment = segment
