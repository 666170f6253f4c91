"""Averaged weights, also of a short training."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


def averaging(decay: float) -> lightning.Callback:
    """Exponentially averaged weights whose decay rises as the steps do, so that a short training does not keep its random begin.

    Decay of step n: the smaller one of ``decay`` and (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
    """

    def average(averaged: Any, current: Any, number: torch.Tensor) -> None:
        done = int(number)
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averaged, current, number)

    return WeightAveraging(multi_avg_fn=average, use_buffers=True)
