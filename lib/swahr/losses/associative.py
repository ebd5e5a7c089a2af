"""Associative embedding (Newell et al., NIPS 2017): tags of a person are pulled together, people
are pushed apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swahr.losses.heatmap import at_least_float32

KINDS = ("exp", "max")


def check_push_kind(kind: str) -> str:
    """kind, if it is one of KINDS; else a ValueError."""
    if kind not in KINDS:
        raise ValueError(f"LOSS.AE_LOSS_TYPE {kind!r} is unknown: it is one of {', '.join(KINDS)}")
    return kind


def associative_loss(
    tags: Tensor, index: Tensor, present: Tensor, kind: str = "exp"
) -> tuple[Tensor, Tensor]:
    """Push and pull loss of each image, both (B,), in float32.

    tags: (B, C, h, w) tag maps.
    index: (B, N, K) int64, each joint's place in its image's flat C*h*w tags; present: (B, N, K)
    bool, if it counts.
    Of an image, n people with a present joint take part; t_i is the mean tag of person i.
    pull: mean over people of the mean squared distance of a person's tags to t_i.
    push: 0.5 / (n (n - 1)) times the sum over ordered pairs i != j of exp(-(t_i - t_j)^2), or, for
    kind "max", of max(0, 1 - |t_i - t_j|).
    Without anybody both are 0, with a single person push is 0; they stay differentiable, with
    gradient 0.
    """
    check_push_kind(kind)
    values = tags.flatten(1).gather(1, index.flatten(1)).view_as(index)
    values = torch.where(present, at_least_float32(values), 0)
    joints = present.sum(-1).to(values.dtype)
    person = joints > 0
    people = person.sum(-1).to(values.dtype)
    joints = joints.clamp(min=1)
    means = values.sum(-1) / joints
    spread = torch.where(present, values - means[..., None], 0).square().sum(-1) / joints
    pull = spread.sum(-1) / people.clamp(min=1)

    apart = means[:, :, None] - means[:, None, :]
    closeness = torch.exp(-apart.square()) if kind == "exp" else torch.relu(1 - apart.abs())
    pairs = (person[:, :, None] & person[:, None, :]).triu(1)  # each pair once, in place of the 0.5
    push = torch.where(pairs, closeness, 0).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return push, pull
