"""Joints -> training targets: heatmaps, the joints' indices into the tag maps, and the mask of the
pixels that are learnt.

A whole batch is encoded at once, on the device of its joints. Joints are padded to the largest
number of people in the batch; a row of zeros is no person. A joint's pixel is int(coordinate), so
-0.4 is pixel 0; joints outside the map are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class StageTarget(NamedTuple):
    """The targets of one stage of the network.

    heatmaps: (B, K, h, w) float32.
    mask: (B, h, w) float32, 0 where nothing is learnt.
    index: (B, N, K) int64, each joint's index into its image's tag maps, flat over K*h*w, or over
    h*w if the joints share one map.
    present: (B, N, K) bool, whether the joint is labelled and inside the map; if not, index is 0.
    joints: (B, N, K, 3|4), the joints in pixels of the stage, for losses that need more; None where
    the target was made without them.
    """

    heatmaps: Tensor
    mask: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not needed
    present: Tensor
    joints: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> StageTarget:
        """The same with `function` applied to every tensor."""
        return StageTarget(*(None if part is None else function(part) for part in self))  # type: ignore[arg-type]


def _pixels(joints: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """joints (B, N, K, >=3) -> pixels (B, N, K, 2), as floats, and which joints are labelled and in
    the map (B, N, K).

    The others are at pixel 0.
    """
    pixels = joints[..., :2].trunc()
    present = (joints[..., 2] > 0) & ((pixels >= 0) & (pixels < size)).all(-1)
    return torch.where(present[..., None], pixels, 0), present


def _render(
    joints: Tensor, sigma: Tensor, size: int, patch_size: int, drop_absent: bool | None = None
) -> Tensor:
    """Joints (B, N, K, >=3) as Gaussian patches of at most patch_size pixels -> (B, K, size, size).

    sigma broadcasts to (B, N, K). The rule is that of the published code: a patch is sampled at 0,
    1, 2, ... with its peak at 3 sigma + 1, and is laid on the pixels from round(x - 3 sigma - 1) up
    to, not including, round(x + 3 sigma + 2), halves rounded to even. If 3 sigma is whole, these
    are 6 sigma + 3 samples with the peak on the joint; else the peak is up to half a pixel off.
    Patches are merged by maximum, so that their order does not matter, on a GPU either.

    drop_absent: whether absent joints are dropped first, with the same result; otherwise they are
    drawn as zeros. To drop them, they have to be counted, which waits for a GPU and gives tensors
    of another size for each batch. None: on the CPU only.
    """
    batch, _, num_joints = joints.shape[:3]
    pixels, present = _pixels(joints, size)
    present = present & (sigma > 0)
    sigma = torch.where(present, sigma, 1)
    channels = torch.arange(batch * num_joints, device=joints.device)
    channels = channels.view(batch, 1, num_joints).expand_as(present)
    pixels, sigma, channels, present = (
        values.flatten(0, 2) for values in (pixels, sigma, channels, present)
    )
    if not joints.is_cuda if drop_absent is None else drop_absent:
        drawn = present.nonzero().squeeze(1)
        pixels, sigma, channels, present = (
            values[drawn] for values in (pixels, sigma, channels, present)
        )

    offsets = torch.arange(patch_size, device=joints.device)
    radius = (3 * sigma + 1)[:, None]
    exponents = (offsets - radius).square() / (-2 * sigma.square())[:, None]
    samples = torch.exp(exponents).float()  # (joints, patch_size)
    first = torch.round(pixels - radius)
    end = torch.round(pixels + radius + 1)
    positions = first[..., None] + offsets  # (joints, 2, patch_size), x and y
    inside = (positions >= 0) & (positions < end[..., None]) & (positions < size)
    inside = inside & present[:, None, None]
    samples = torch.where(inside, samples[:, None], 0)
    x, y = positions.clamp(0, size - 1).long().unbind(1)
    index = ((channels[:, None] * size + y) * size)[:, :, None] + x[:, None, :]
    patches = samples[:, 1, :, None] * samples[:, 0, None, :]
    heatmaps = torch.zeros(batch * num_joints * size * size, device=joints.device)
    heatmaps.scatter_reduce_(0, index.flatten(), patches.flatten(), "amax")
    return heatmaps.view(batch, num_joints, size, size)


def render_heatmaps(
    joints: Tensor, size: int, sigma: float, drop_absent: bool | None = None
) -> Tensor:
    """joints (B, N, K, >=3) in pixels of the map, present where the third number is > 0 -> (B, K,
    size, size) float32.

    sigma: standard deviation of a joint's Gaussian in pixels; 0 or a negative one means size / 64.
    drop_absent: True is faster on a CPU, False never waits for a GPU; None: True on a CPU.
    """
    sigma = sigma if sigma > 0 else size / 64
    patch_size = math.ceil(6 * sigma + 3)
    return _render(joints, joints.new_full((), sigma), size, patch_size, drop_absent)


def render_scale_aware(joints: Tensor, size: int, drop_absent: bool | None = None) -> Tensor:
    """Like render_heatmaps, for joints (B, N, K, 4) whose fourth number is the person's sigma in
    pixels; that of the first joint counts, as in the published code.
    """
    sigma = joints[:, :, :1, 3].expand(joints.shape[:-1])
    # This waits for a GPU: patches need a size.
    largest = float(sigma.max()) if sigma.numel() else 0.0
    return _render(joints, sigma, size, math.ceil(6 * largest + 3), drop_absent)


def tag_index(joints: Tensor, size: int, tag_per_joint: bool) -> tuple[Tensor, Tensor]:
    """joints (B, N, K, >=3) -> index (B, N, K) int64 and present (B, N, K) bool, as in StageTarget.

    tag_per_joint: whether each joint has a tag map of its own or all share one.
    """
    pixels, present = _pixels(joints, size)
    x, y = pixels.long().unbind(-1)
    index = y * size + x
    if tag_per_joint:
        index = index + torch.arange(joints.shape[2], device=joints.device) * (size * size)
    return torch.where(present, index, 0), present


class TargetEncoder:
    """Joints and masks of a batch -> one StageTarget for each stage of the network.

    sizes: side of each stage's square maps in pixels.
    sigma: see render_heatmaps; not used if scale_aware, since each joint then has its own.
    tag_per_joint: see tag_index.
    drop_absent: see render_heatmaps.

    Raises ValueError for sigma 0.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int],
        sigma: float,
        scale_aware: bool,
        tag_per_joint: bool,
        drop_absent: bool | None = None,
    ) -> None:
        if sigma == 0:
            raise ValueError(
                "sigma is 0: it is a width in pixels, or negative for a 64th of the map's side"
            )
        self.sizes = tuple(sizes)
        self.sigma = sigma
        self.scale_aware = scale_aware
        self.tag_per_joint = tag_per_joint
        self.drop_absent = drop_absent

    def __call__(self, joints: Sequence[Tensor], masks: Sequence[Tensor]) -> list[StageTarget]:
        """For each stage joints (B, N, K, 3), or (B, N, K, 4) if scale_aware, in its pixels, and
        a mask (B, h, w) -> the stage's target.

        Raises ValueError if the numbers of stages or the shapes do not fit.
        """
        if not len(joints) == len(masks) == len(self.sizes):
            raise ValueError(
                f"joints of {len(joints)} stages and masks of {len(masks)}: "
                f"there are {len(self.sizes)} stages"
            )
        return [self._encode(*stage) for stage in zip(joints, masks, self.sizes)]

    def _encode(self, joints: Tensor, mask: Tensor, size: int) -> StageTarget:
        columns = 4 if self.scale_aware else 3
        if joints.ndim != 4 or joints.shape[-1] < columns:
            raise ValueError(
                f"joints have shape {tuple(joints.shape)}: it should be (B, N, K, {columns})"
            )
        if mask.shape != (len(joints), size, size):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}: it should be {(len(joints), size, size)}"
            )
        if self.scale_aware:
            heatmaps = render_scale_aware(joints, size, self.drop_absent)
        else:
            heatmaps = render_heatmaps(joints, size, self.sigma, self.drop_absent)
        index, present = tag_index(joints, size, self.tag_per_joint)
        return StageTarget(heatmaps, mask.float(), index, present, joints)


def build_target_encoder(cfg: Any) -> TargetEncoder:
    """The encoder that cfg.DATASET and cfg.MODEL.TAG_PER_JOINT describe."""
    return TargetEncoder(
        sizes=cfg.DATASET.OUTPUT_SIZE,
        sigma=cfg.DATASET.SIGMA,
        scale_aware=cfg.DATASET.SCALE_AWARE_SIGMA,
        tag_per_joint=cfg.MODEL.TAG_PER_JOINT,
    )
