"""Heatmaps and tags to people: peaks, grouping, adjustment, refinement.

The inverse of `targets`: what that module renders, this one reads. On the CPU the maps are read by
compiled loops, image by image; on other devices by tensor operations, the whole batch at once, with
two small copies to the host (the peaks, and the joints that were missing); grouping is done on the
host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swahr.codec.grouping import Members, group, mean_tags
from swahr.codec.peaks import Peaks, find_peaks, find_peaks_batch
from swahr.codec.refine import find_missing, find_missing_batch
from swahr.codec.tile_bounds import NOT_FINITE, Floats, tile_bounds
from swahr.skeleton import Skeleton


class People(NamedTuple):
    """N people of one image, the first founded first."""

    keypoints: NDArray[
        np.float32
    ]  # (N, K, 3) x, y in map pixels and the score; 0 where a joint is missing
    scores: NDArray[np.float32]  # (N,) mean over the K joints before refinement
    tags: NDArray[np.float32]  # (N, T) mean tag of the joints before refinement


class Decoder:
    """Maps to people, with the rules and results of the published HigherHRNet and SWAHR code.

    grouping_order: the K joints in the order in which they are grouped; max_people: peaks kept of
    each joint, and people that can be joined; detection_threshold: the score that a peak exceeds;
    tag_threshold: the tag distance below which a peak may join a person; nms_kernel, nms_padding:
    the max-pooling window, kernel = 2 padding + 1; use_detection_val, ignore_too_much: see
    `grouping.group`; adjust: move peaks a quarter of a pixel towards the higher neighbour and to
    the pixels' centres; refine: look for the missing joints of everybody found.

    The first image may wait for compilation, see `jit`; `warm_up` gets that over with.
    """

    def __init__(
        self,
        *,
        grouping_order: Sequence[int],
        max_people: int = 30,
        detection_threshold: float = 0.1,
        tag_threshold: float = 1.0,
        nms_kernel: int = 5,
        nms_padding: int = 2,
        use_detection_val: bool = True,
        ignore_too_much: bool = False,
        adjust: bool = True,
        refine: bool = True,
    ) -> None:
        count = len(grouping_order)
        if not count or sorted(grouping_order) != list(range(count)):
            raise ValueError(
                f"grouping_order is {list(grouping_order)}; it must hold each joint, from 0 on, once"
            )
        if max_people < 1:
            raise ValueError(f"DATASET.MAX_NUM_PEOPLE is {max_people}; it must be 1 or more")
        if not detection_threshold >= 0:
            raise ValueError(
                f"TEST.DETECTION_THRESHOLD is {detection_threshold}; it must be 0 or more"
            )
        if nms_padding < 0 or nms_kernel != 2 * nms_padding + 1:
            raise ValueError(
                f"TEST.NMS_KERNEL is {nms_kernel} and TEST.NMS_PADDING {nms_padding}; the kernel must be "
                "twice the padding and 1, as 5 and 2"
            )
        self.grouping_order = np.asarray(grouping_order, np.int64)
        self.adjust = adjust
        self.refine = refine
        self._peak_settings: dict[str, Any] = dict(
            limit=max_people, threshold=detection_threshold, reach=nms_padding
        )
        self._group_settings: dict[str, Any] = dict(
            max_people=max_people,
            tag_threshold=tag_threshold,
            use_detection_val=use_detection_val,
            ignore_too_much=ignore_too_much,
        )

    @torch.no_grad()
    def __call__(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> list[People]:
        """heatmaps (B, K, H, W) and tags (B, K or 1, H, W, T) on one device -> the people of each
        image.

        Raises ValueError where the shapes do not fit or a value is not finite.
        """
        self._check(heatmaps, tags)
        heatmaps = heatmaps.detach().float().contiguous()
        tags = tags.detach().float().contiguous()
        if heatmaps.device.type == "cpu":
            return [
                self._decode_image(*maps)
                for maps in zip(heatmaps.numpy(), tags.numpy(), strict=True)
            ]
        return self._decode_batch(heatmaps, tags) if len(heatmaps) else []

    def warm_up(self, tag_maps: int = 2) -> None:
        """Compile what decoding on the CPU needs, or load it where an earlier process has compiled
        it.
        """
        joints = len(self.grouping_order)
        side = 8 + 8 * math.isqrt(self._peak_settings["limit"])  # no small map
        heatmaps = torch.zeros(1, joints, side, side)
        heatmaps[0, self.grouping_order[0], ::8, ::8] = (
            1 + self._peak_settings["threshold"]
        )  # the others are missing
        self(heatmaps, torch.zeros(1, joints, side, side, tag_maps))

    def _check(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> None:
        joints = len(self.grouping_order)
        if heatmaps.ndim != 4 or heatmaps.shape[1] != joints or 0 in heatmaps.shape[2:]:
            raise ValueError(
                f"heatmaps have shape {tuple(heatmaps.shape)}; it should be (B, {joints}, H, W), "
                "one map for each joint"
            )
        batch, _, height, width = heatmaps.shape
        shapes = [(batch, channels, height, width) for channels in (1, joints)]
        if tags.ndim != 5 or tags.shape[:4] not in shapes or tags.shape[4] == 0:
            raise ValueError(
                f"tags have shape {tuple(tags.shape)}; it should be "
                f"({batch}, {joints} or 1, {height}, {width}, T)"
            )
        if heatmaps.device != tags.device:
            raise ValueError(
                f"heatmaps are on {heatmaps.device} and tags on {tags.device}; "
                "they should be on one device"
            )

    def _decode_image(self, heatmaps: Floats, tags: Floats) -> People:
        heat = tile_bounds(heatmaps[..., None])
        tag_range = tile_bounds(tags)
        if not (heat.finite and tag_range.finite):
            raise ValueError(NOT_FINITE)
        peaks = find_peaks(heatmaps, tags, heat, **self._peak_settings)
        members = group(peaks, self.grouping_order, **self._group_settings)
        people = self._people(peaks, members, heatmaps.shape[-1])
        persons, joints = np.nonzero(members < 0)
        if self.refine and len(persons):
            found = find_missing(heatmaps, tags, heat, tag_range, joints, people.tags[persons])
            _fill(people, persons, joints, found)
        return people

    def _decode_batch(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> list[People]:
        everybody = []
        missing = []  # missing: image, person, joint
        for image, peaks in enumerate(find_peaks_batch(heatmaps, tags, **self._peak_settings)):
            members = group(peaks, self.grouping_order, **self._group_settings)
            everybody.append(self._people(peaks, members, heatmaps.shape[-1]))
            persons, joints = np.nonzero(members < 0)
            missing.append(np.stack([np.full_like(persons, image), persons, joints]))
        images, persons, joints = np.concatenate(missing, 1)
        if self.refine and len(images):
            means = np.concatenate(
                [people.tags[own[1]] for people, own in zip(everybody, missing, strict=True)]
            )
            found = find_missing_batch(heatmaps, tags, images, joints, means)
            for image, people in enumerate(everybody):
                own = images == image
                _fill(people, persons[own], joints[own], found[own])
        return everybody

    def _people(self, peaks: Peaks, members: Members, width: int) -> People:
        """The people with the joints that grouping gave them."""
        places = np.stack([peaks.pixels % width, peaks.pixels // width], -1).astype(np.float32)
        if self.adjust:
            places += peaks.offsets + np.float32(0.5)
        joints = np.concatenate([places, peaks.scores[..., None]], -1)  # (K, M, 3)
        keypoints = joints[np.arange(len(joints)), members]  # (N, K, 3)
        keypoints[members < 0] = 0
        return People(keypoints, keypoints[..., 2].mean(1), mean_tags(peaks, members))


def _fill(
    people: People,
    persons: NDArray[np.int64],
    joints: NDArray[np.int64],
    found: NDArray[np.float32],
) -> None:
    """Give people the joints (n, 3) found for them, where the heatmap is positive."""
    there = found[:, 2] > 0
    people.keypoints[persons[there], joints[there]] = found[there]


def build_decoder(cfg: Any, skeleton: Skeleton) -> Decoder:
    """The decoder of a configuration; `skeleton` has the centre just where the maps have it
    (Skeleton.with_center).
    """
    test = cfg.TEST
    return Decoder(
        grouping_order=skeleton.grouping_order,
        max_people=cfg.DATASET.MAX_NUM_PEOPLE,
        detection_threshold=test.DETECTION_THRESHOLD,
        tag_threshold=test.TAG_THRESHOLD,
        nms_kernel=test.NMS_KERNEL,
        nms_padding=test.NMS_PADDING,
        use_detection_val=test.USE_DETECTION_VAL,
        ignore_too_much=test.IGNORE_TOO_MUCH,
        adjust=test.ADJUST,
        refine=test.REFINE,
    )
