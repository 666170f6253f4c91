"""A body with the values that a CT stores, for volumes whose rescale intercept is missing."""

import numpy as np

STORED_SHAPE = (20, 48, 48)
"""Slices, rows, columns of :func:`body_hu`."""


def body_hu(lung_share: float = 0.3) -> np.ndarray:
    """int16 ``[k, j, i]``: soft tissue with noise, lung and air, as the stored values of a CT have them."""
    rng = np.random.default_rng(0)
    hu = rng.normal(40, 30, STORED_SHAPE)
    hu[:, :8] = -1000
    hu[:, 12 : 12 + round(48 * lung_share)] = rng.normal(-850, 40, (20, round(48 * lung_share), 48))
    hu[:, -3:] = rng.normal(400, 100, (20, 3, 48))
    return np.clip(hu, -1024, 3000).astype(np.int16)
