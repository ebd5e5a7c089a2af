"""Weight- and scale-adaptive heatmap regression.

Luo et al., "Rethinking the Heatmap Regression for Bottom-up Human Pose Estimation", CVPR 2021. For
a predicted heatmap P, a target heatmap H, a mask M and a scale map s that the network predicts
beside P:

    a = s [H > 0],  u = a ln H
    T = H (1 + u + u^2 / 2) where H > 0, else 0
        the scale-adaptive target: H^(1 + a) to second order in a
    W = |1 - P| H^g + |P| (1 - H^g)
        the weight: pixels far from their target count more, on joints and on the background
    loss = mean of W (P - T)^2 M

Gradients flow through P (in W too) and through a. Their formulas are written out here, and they are
computed together with the loss: automatic differentiation would keep about fifteen maps of the size
of P instead of two, which is a gigabyte more at the finer stage of a usual batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is: losses do not depend on the network's precision,
    and float64 is for gradient checks.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _adapted_target(target: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """T and dT/da = H ln H (1 + u), both (B, K, h, w)."""
    # The logarithm is finite also where H is 0; the factor H then cancels it.
    log = target.clamp(min=torch.finfo(target.dtype).tiny).log_()
    u = torch.where(target > 0, scales, 0).mul_(log)
    adapted = (u / 2).add_(1).mul_(u).add_(1).mul_(target)
    return adapted, u.add_(1).mul_(log).mul_(target)


class _HeatmapLoss(torch.autograd.Function):
    """The loss and, where they are needed, its derivatives by P and s, not yet divided by the
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
        ctx.dtypes = (predicted.dtype, None if scales is None else scales.dtype)
        ctx.pixels = predicted[0].numel()
        predicted = at_least_float32(predicted)
        target = at_least_float32(target)
        mask = at_least_float32(mask)[:, None]
        adapted = target
        d_target = None
        if scales is not None:
            adapted, d_target = _adapted_target(target, at_least_float32(scales))
        residual = predicted - adapted
        weighted = residual * mask  # becomes W (P - T) M
        grad_weight = None  # dW/dP (P - T)^2 M
        if gamma is not None:
            joint_weight = target.pow(gamma)  # H^g
            if ctx.needs_input_grad[0]:
                d_weight = torch.lerp(predicted.sign(), (predicted - 1).sign_(), joint_weight)
                grad_weight = d_weight.mul_(residual).mul_(weighted)
            weight = torch.lerp(predicted.abs(), (1 - predicted).abs_(), joint_weight)
            weighted.mul_(weight)
        loss = residual.mul_(weighted).mean((1, 2, 3))
        grad_predicted = None
        grad_scales = None
        if d_target is not None and ctx.needs_input_grad[3]:
            grad_scales = d_target.mul_(weighted).mul_(-2)
        if ctx.needs_input_grad[0]:
            if grad_weight is None:
                grad_predicted = weighted.mul_(2)
            else:
                grad_predicted = grad_weight.add_(weighted, alpha=2)
        ctx.save_for_backward(grad_predicted, grad_scales)
        return loss

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_loss: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None, None]:
        grad_pixel = (grad_loss / ctx.pixels).view(-1, 1, 1, 1)
        grad_predicted, grad_scales = (
            None if derivative is None else (derivative * grad_pixel).to(dtype)
            for derivative, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return grad_predicted, None, None, grad_scales, None


def heatmap_loss(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    scales: Tensor | None = None,
    gamma: float | None = 0.01,
) -> Tensor:
    """The loss of each image, (B,), in float32.

    predicted, target: (B, K, h, w) heatmaps P and H, H from 0 to 1.
    mask: (B, h, w), 0 where nothing is learnt.
    scales: (B, K, h, w) scale maps s, or None for a target that is not adapted (T = H).
    gamma: exponent g of the weights, or None for none (W = 1).
    With both None this is the plain squared error.
    """
    return _HeatmapLoss.apply(predicted, target, mask, scales, gamma)
