"""Several networks as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from NLSTSegLib.networks.network import Network

MOST_MEMBERS = 20

SUREST = 1e-6
"""Probabilities are kept so far from 0 and 1, where a logit would be infinite."""


class Ensemble(Network):
    """Networks of one input; the logits are those of the mean of the members' probabilities, float32."""

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # As its members say, whatever is said of other networks.
        self.side_multiple, self.takes_crops = members[0].side_multiple, members[0].takes_crops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _mean([member(x) for member in self.members])

    def answer(self, x: torch.Tensor, lung_mask: np.ndarray) -> torch.Tensor:
        answers = [member.answer(x, lung_mask) for member in self.members if isinstance(member, Network)]
        return _mean(answers)

    def sparse(self, dtype: torch.dtype) -> Network | None:
        found = [member.sparse(dtype) for member in self.members if isinstance(member, Network)]
        members = [member for member in found if member is not None]
        return Ensemble(members) if len(members) == len(self.members) else None


def _mean(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.logit(torch.stack([torch.sigmoid(each.float()) for each in logits]).mean(dim=0), SUREST)
