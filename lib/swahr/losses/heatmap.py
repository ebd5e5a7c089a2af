"""Weight- and scale-adaptive heatmap regression.

Luo et al., "Rethinking the Heatmap Regression for Bottom-up Human Pose Estimation", CVPR 2021. For
a predicted heatmap P, a target heatmap H, a mask M and a scale map s that the network predicts
beside P:

    a = s [H > 0],  u = a ln H
    T = H (1 + u + u^2 / 2) where H > 0, else 0      scale-adaptive target: H^(1 + a) to second
    order in a
    W = |1 - P| H^g + |P| (1 - H^g)                  weight: what is far off, joint or not, counts
    more
    loss = mean of W (P - T)^2 M

Gradients flow through P, in W too, and through a. They are written out here and computed beside the
loss: automatic differentiation would keep some fifteen maps of the size of P, a gigabyte at the
finer stage of a usual batch, not two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def at_least_float32(tensor: Tensor) -> Tensor:
    """Losses are computed in float32 whatever the network ran in; float64 stays, for checks of
    gradients.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _adapted_target(target: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """T and dT/da = H ln H (1 + u), both (B, K, h, w)."""
    log = target.clamp(
        min=torch.finfo(target.dtype).tiny
    ).log_()  # finite where H = 0, which then cancels it
    u = torch.where(target > 0, scales, 0).mul_(log)
    return (u / 2).add_(1).mul_(u).add_(1).mul_(target), u.add_(1).mul_(log).mul_(target)


class _HeatmapLoss(torch.autograd.Function):
    """The loss, and, where they are needed, its derivatives by P and s, not yet divided by the
    number of pixels.
    """

    @staticmethod
    def forward(
        ctx: Any,
        predicted: Tensor,
        target: Tensor,
        mask: Tensor,
        scales: Tensor | None,
        gamma: float | None,
    ) -> Tensor:
        ctx.dtypes = predicted.dtype, None if scales is None else scales.dtype
        ctx.pixels = predicted[0].numel()
        predicted = at_least_float32(predicted)
        target = at_least_float32(target)
        mask = at_least_float32(mask)[:, None]
        adapted, slope = (
            (target, None) if scales is None else _adapted_target(target, at_least_float32(scales))
        )
        residual = predicted - adapted
        weighted = residual * mask  # W (P - T) M
        by_weight = None  # dW/dP (P - T)^2 M
        if gamma is not None:
            share = target.pow(gamma)
            if ctx.needs_input_grad[0]:
                by_weight = (
                    torch.lerp(predicted.sign(), (predicted - 1).sign_(), share)
                    .mul_(residual)
                    .mul_(weighted)
                )
            weighted.mul_(torch.lerp(predicted.abs(), (1 - predicted).abs_(), share))
        loss = (residual.mul_(weighted)).mean((1, 2, 3))
        by_predicted = by_scales = None
        if slope is not None and ctx.needs_input_grad[3]:
            by_scales = slope.mul_(weighted).mul_(-2)
        if ctx.needs_input_grad[0]:
            by_predicted = (
                weighted.mul_(2) if by_weight is None else by_weight.add_(weighted, alpha=2)
            )
        ctx.save_for_backward(by_predicted, by_scales)
        return loss

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None, None]:
        outer = (gradient / ctx.pixels).view(-1, 1, 1, 1)
        by_predicted, by_scales = (
            None if slope is None else (slope * outer).to(dtype)
            for slope, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return by_predicted, None, None, by_scales, None


def heatmap_loss(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    scales: Tensor | None = None,
    gamma: float | None = 0.01,
) -> Tensor:
    """The loss of each image, (B,), in float32.

    predicted, target: (B, K, h, w) heatmaps P and H, H from 0 to 1; mask: (B, h, w), 0 where
    nothing is learnt.
    scales: (B, K, h, w) scale maps s, or None for a target that is not adapted (T = H).
    gamma: exponent g of the weights, or None for none (W = 1). Both None is the plain squared
    error.
    """
    return _HeatmapLoss.apply(predicted, target, mask, scales, gamma)
