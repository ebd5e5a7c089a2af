"""Heatmaps and tags to people: peaks, grouping, adjustment, refinement.

The inverse of `targets`: what that module renders, this one reads. On the CPU the maps are read by compiled loops,
image by image; on other devices by tensor operations, the whole batch at once, with two small copies to the host (the
peaks, and the joints that were missing); grouping is done on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..skeleton import Skeleton
from .grouping import Members, group, mean_tags
from .peaks import Peaks, find_peaks, find_peaks_batch
from .refine import find_missing, find_missing_batch
from .tiles import NOT_FINITE, tile_range


class People(NamedTuple):
    """N people of one image, the first founded first."""

    keypoints: NDArray[np.float32]  # (N, K, 3) x, y in map pixels and the score; 0 where a joint is missing
    scores: NDArray[np.float32]     # (N,) mean over the K joints before refinement
    tags: NDArray[np.float32]       # (N, T) mean tag of the joints before refinement


class Decoder:
    """Maps to people, with the rules and results of the published HigherHRNet and SWAHR code.

    grouping_order: the K joints in the order in which they are grouped; max_people: peaks kept of each joint, and
    people that can be joined; detection_threshold: the score that a peak exceeds; tag_threshold: the tag distance below
    which a peak may join a person; nms_kernel, nms_padding: the max-pooling window, kernel = 2 padding + 1;
    use_detection_val, ignore_too_much: see `grouping.group`; adjust: move peaks a quarter of a pixel towards the higher
    neighbour and to the pixels' centres; refine: look for the missing joints of everybody found.

    The first image may wait for compilation, see `jit`; `warm_up` gets that over with.
    """

    def __init__(self, *, grouping_order: Sequence[int], max_people: int = 30, detection_threshold: float = 0.1,
                 tag_threshold: float = 1.0, nms_kernel: int = 5, nms_padding: int = 2, use_detection_val: bool = True,
                 ignore_too_much: bool = False, adjust: bool = True, refine: bool = True) -> None:
        if sorted(grouping_order) != list(range(len(grouping_order))):
            raise ValueError(f"grouping_order must hold each joint from 0 to {len(grouping_order) - 1} once, not {list(grouping_order)}")
        if max_people < 1:
            raise ValueError(f"DATASET.MAX_NUM_PEOPLE is {max_people}; it must be 1 or more")
        if not detection_threshold >= 0:
            raise ValueError(f"TEST.DETECTION_THRESHOLD is {detection_threshold}; it must be 0 or more")
        if nms_padding < 0 or nms_kernel != 2 * nms_padding + 1:
            raise ValueError(f"TEST.NMS_KERNEL is {nms_kernel} and TEST.NMS_PADDING {nms_padding}; the kernel must be odd and the "
                             "padding half of it, rounded down (5 and 2)")
        self.grouping_order = np.asarray(grouping_order, np.int64)
        self.max_people, self.reach, self.detection_threshold = int(max_people), int(nms_padding), float(detection_threshold)
        self.tag_threshold, self.use_detection_val, self.ignore_too_much = float(tag_threshold), use_detection_val, ignore_too_much
        self.adjust, self.refine = adjust, refine

    @torch.no_grad()
    def __call__(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> list[People]:
        """heatmaps (B, K, H, W) and tags (B, K or 1, H, W, T) on one device -> the people of each image.

        Raises ValueError where the shapes do not fit or a value is not finite.
        """
        self._check(heatmaps, tags)
        heatmaps, tags = heatmaps.detach().float().contiguous(), tags.detach().float().contiguous()
        if heatmaps.device.type == "cpu":
            return [self._decode_image(*maps) for maps in zip(heatmaps.numpy(), tags.numpy(), strict=True)]
        return self._decode_batch(heatmaps, tags)

    def warm_up(self, tags: int = 2) -> None:
        """Compile what decoding on the CPU needs, or load it where an earlier process has compiled it."""
        joints = len(self.grouping_order)
        self(torch.ones(1, joints, 2, 2) * (1 + torch.arange(4).view(2, 2)), torch.zeros(1, joints, 2, 2, tags))

    def _check(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> None:
        joints = len(self.grouping_order)
        if heatmaps.ndim != 4 or heatmaps.shape[1] != joints or not heatmaps[0:1, 0].numel() and len(heatmaps):
            raise ValueError(f"heatmaps have shape {tuple(heatmaps.shape)}; it should be (B, {joints}, H, W), one map for each joint")
        batch, _, height, width = heatmaps.shape
        if tags.ndim != 5 or tags.shape[:1] + tags.shape[2:4] != (batch, height, width) or tags.shape[1] not in (1, joints) \
                or not tags.shape[4]:
            raise ValueError(f"tags have shape {tuple(tags.shape)}; it should be ({batch}, {joints} or 1, {height}, {width}, T)")
        if heatmaps.device != tags.device:
            raise ValueError(f"heatmaps are on {heatmaps.device} and tags on {tags.device}; they should be on one device")

    def _decode_image(self, heatmaps: NDArray[np.float32], tags: NDArray[np.float32]) -> People:
        heat, tag_range = tile_range(heatmaps[..., None]), tile_range(tags)
        if not (heat.finite and tag_range.finite):
            raise ValueError(NOT_FINITE)
        peaks = find_peaks(heatmaps, tags, heat, limit=self.max_people, threshold=self.detection_threshold, reach=self.reach)
        members = self._group(peaks)
        people = self._people(peaks, members, heatmaps.shape[-1])
        persons, joints = np.nonzero(members < 0)
        if self.refine and len(persons):
            _fill(people, persons, joints, find_missing(heatmaps, tags, heat, tag_range, joints, people.tags[persons]))
        return people

    def _decode_batch(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> list[People]:
        if not len(heatmaps):
            return []
        all_peaks = find_peaks_batch(heatmaps, tags, limit=self.max_people, threshold=self.detection_threshold, reach=self.reach)
        groups = [self._group(peaks) for peaks in all_peaks]
        everybody = [self._people(peaks, members, heatmaps.shape[-1]) for peaks, members in zip(all_peaks, groups, strict=True)]
        missing = [np.nonzero(members < 0) for members in groups]
        counts = [len(persons) for persons, _ in missing]
        if self.refine and sum(counts):
            means = np.concatenate([people.tags[persons] for people, (persons, _) in zip(everybody, missing, strict=True)])
            found = find_missing_batch(heatmaps, tags, np.repeat(np.arange(len(counts)), counts),
                                       np.concatenate([joints for _, joints in missing]), means)
            parts = np.split(found, np.cumsum(counts)[:-1])
            for people, (persons, joints), part in zip(everybody, missing, parts, strict=True):
                _fill(people, persons, joints, part)
        return everybody

    def _group(self, peaks: Peaks) -> Members:
        return group(peaks, self.grouping_order, max_people=self.max_people, tag_threshold=self.tag_threshold,
                     use_detection_val=self.use_detection_val, ignore_too_much=self.ignore_too_much)

    def _people(self, peaks: Peaks, members: Members, width: int) -> People:
        """The people with the joints that grouping gave them."""
        pixels = np.stack([peaks.pixels % width, peaks.pixels // width], -1).astype(np.float32)
        if self.adjust:
            pixels += peaks.offsets + np.float32(0.5)
        joints = np.concatenate([pixels, peaks.scores[..., None]], -1)  # (K, M, 3)
        keypoints = joints[np.arange(len(joints)), members]  # (N, K, 3)
        keypoints[members < 0] = 0
        return People(keypoints, keypoints[..., 2].mean(1), mean_tags(peaks, members))


def _fill(people: People, persons: NDArray[np.int64], joints: NDArray[np.int64], found: NDArray[np.float32]) -> None:
    """Give people the joints (n, 3) found for them, where the heatmap is positive."""
    there = found[:, 2] > 0
    people.keypoints[persons[there], joints[there]] = found[there]


def build_decoder(cfg: Any, skeleton: Skeleton) -> Decoder:
    """The decoder of a configuration; `skeleton` has the centre exactly where the maps have it (see Skeleton.with_center)."""
    test = cfg.TEST
    return Decoder(grouping_order=skeleton.grouping_order, max_people=cfg.DATASET.MAX_NUM_PEOPLE,
                   detection_threshold=test.DETECTION_THRESHOLD, tag_threshold=test.TAG_THRESHOLD, nms_kernel=test.NMS_KERNEL,
                   nms_padding=test.NMS_PADDING, use_detection_val=test.USE_DETECTION_VAL, ignore_too_much=test.IGNORE_TOO_MUCH,
                   adjust=test.ADJUST, refine=test.REFINE)
