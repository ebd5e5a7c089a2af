"""Associative embedding (Newell et al., NIPS 2017): the tags of one person are pulled together, the
tags of different people are pushed apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swahr.losses.heatmap import at_least_float32

PUSH_KINDS = ("exp", "max")


def check_push_kind(push_kind: str) -> str:
    """push_kind, if it is one of PUSH_KINDS; else a ValueError."""
    if push_kind not in PUSH_KINDS:
        raise ValueError(
            f"push_kind {push_kind!r} is unknown: it is one of {', '.join(PUSH_KINDS)}"
        )
    return push_kind


def associative_loss(
    tags: Tensor, index: Tensor, present: Tensor, push_kind: str = "exp"
) -> tuple[Tensor, Tensor]:
    """Push and pull loss of each image, both (B,), in float32.

    tags: (B, C, h, w) tag maps.
    index: (B, N, K) int64, each joint's index into its image's flat C*h*w tags.
    present: (B, N, K) bool, whether the joint counts.

    Only the n people of an image with a present joint take part; t_i is the mean tag of person i.
    pull: mean over people of the mean squared distance of a person's tags to t_i.
    push: 0.5 / (n (n - 1)) times the sum over ordered pairs i != j of exp(-(t_i - t_j)^2), or, if
    push_kind is "max", of max(0, 1 - |t_i - t_j|).
    Without people both are 0; with a single person push is 0. They stay differentiable, with
    gradient 0.
    """
    check_push_kind(push_kind)
    values = tags.flatten(1).gather(1, index.flatten(1)).view_as(index)
    values = torch.where(present, at_least_float32(values), 0)
    joints = present.sum(-1).to(values.dtype)
    is_person = joints > 0
    people = is_person.sum(-1).to(values.dtype)
    joints = joints.clamp(min=1)
    means = values.sum(-1) / joints
    variance = torch.where(present, values - means[..., None], 0).square().sum(-1) / joints
    pull = variance.sum(-1) / people.clamp(min=1)

    difference = means[:, :, None] - means[:, None, :]
    if push_kind == "exp":
        closeness = torch.exp(-difference.square())
    else:
        closeness = torch.relu(1 - difference.abs())
    # Each pair counts once instead of twice, so the factor 0.5 is not needed.
    pairs = (is_person[:, :, None] & is_person[:, None, :]).triu(1)
    push = torch.where(pairs, closeness, 0).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return push, pull
