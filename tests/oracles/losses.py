"""The losses in plain, slow loops that follow their formulas, with automatic differentiation."""

from __future__ import annotations

import torch
from torch import Tensor


def heatmap_loss(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    scales: Tensor | None = None,
    gamma: float | None = 0.01,
) -> Tensor:
    """(B, K, h, w) maps and a (B, h, w) mask -> (B,), pixel by pixel."""
    losses = []
    for image in range(len(predicted)):
        pixels = []
        for at in torch.cartesian_prod(*map(torch.arange, predicted.shape[1:])).tolist():
            p = predicted[image][tuple(at)]
            h = target[image][tuple(at)]
            m = mask[image][tuple(at[1:])]
            t = h
            if scales is not None and h > 0:
                u = scales[image][tuple(at)] * torch.log(h)
                t = h * (1 + u + u**2 / 2)
            w = 1 if gamma is None else abs(1 - p) * h**gamma + abs(p) * (1 - h**gamma)
            pixels.append(w * (p - t) ** 2 * m)
        losses.append(sum(pixels) / len(pixels))
    return torch.stack(losses)


def scale_loss(scales: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """(B, K, h, w) maps and a (B, h, w) mask -> (B,), image by image."""
    losses = []
    for image in range(len(scales)):
        adapted = scales[image] * (target[image] > 0)
        losses.append((adapted**2 * mask[image]).mean())
    return torch.stack(losses)


def associative_loss(
    tags: Tensor, index: Tensor, present: Tensor, push_kind: str
) -> tuple[Tensor, Tensor]:
    """tags (B, C, h, w), index and present (B, N, K) -> push and pull (B,): loops over images,
    people and joints.
    """
    both = [
        _associative_loss_of_image(*image, push_kind)
        for image in zip(tags, index.tolist(), present.tolist())
    ]
    return torch.stack([push for push, _ in both]), torch.stack([pull for _, pull in both])


def _associative_loss_of_image(
    tags: Tensor, index: list[list[int]], present: list[list[bool]], push_kind: str
) -> tuple[Tensor, Tensor]:
    flat = tags.reshape(-1)
    means = []
    pulls = []
    for indices, is_present in zip(index, present):
        joints = [flat[i] for i, counts in zip(indices, is_present) if counts]
        if not joints:
            continue
        joints = torch.stack(joints)
        means.append(joints.mean())
        pulls.append(((joints - joints.mean()) ** 2).mean())
    n = len(means)
    zero = flat[0] * 0
    if n == 0:
        return zero, zero
    pull = sum(pulls) / n
    if n == 1:
        return zero, pull
    means = torch.stack(means)
    matrix = means.expand(n, n) - means.expand(n, n).T
    closeness = torch.exp(-(matrix**2)) if push_kind == "exp" else torch.relu(1 - matrix.abs())
    return (closeness.sum() - n) / ((n - 1) * n) * 0.5, pull
