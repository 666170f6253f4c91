"""Loaded by Dask in the workers of a benchmark: ``slow://PATH`` is a file of this computer at the rate of a network."""

import os
import time

import fsspec
from fsspec.implementations.local import LocalFileSystem

BYTES_A_SECOND = 20e6


class SlowAddress(LocalFileSystem):
    """The disk, from which :meth:`get_file` takes as long as a network of :data:`BYTES_A_SECOND` does."""

    protocol = "slow"

    def get_file(self, path: str, *arguments: object, **options: object) -> None:
        time.sleep(os.path.getsize(self._strip_protocol(path)) / BYTES_A_SECOND)
        super().get_file(path, *arguments, **options)


def dask_setup(worker: object) -> None:
    """Called by Dask when the worker starts."""
    fsspec.register_implementation("slow", SlowAddress, clobber=True)
