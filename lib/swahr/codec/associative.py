"""Heatmaps and tags as arrays to people: peaks, grouping, adjustment, refinement, with compiled
loops. It works without torch, for programs that run an exported network; `decode` decodes tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swahr.codec.doubles import without_doubles
from swahr.codec.grouping import PeakOfJoint, group, mean_tags
from swahr.codec.peaks import Peaks, find_peaks
from swahr.codec.refine import find_missing
from swahr.codec.subpixel import place_between_pixels
from swahr.codec.tile_bounds import NOT_FINITE, Floats, NonFiniteError, TileBounds, tile_bounds
from swahr.skeleton import Skeleton


class People(NamedTuple):
    """N people of one image, in the order in which they were created.

    keypoints: (N, K, 3), x and y in map pixels and the score; 0 where a joint is missing.
    scores: (N,), the mean score over the K joints before refinement.
    tags: (N, T), the mean tag of the joints before refinement, times tag_scale; None from decoders
    without tags.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    tags: NDArray[np.float32] | None = None


class ArrayDecoder:
    """Groups peaks by their tags, with the rules and results of the published HigherHRNet and SWAHR
    code.

    grouping_order: the K joints in the order in which they are grouped.
    max_people: peaks kept of each joint, and people that can be joined.
    detection_threshold: the score that a peak exceeds.
    tag_scale: by which tags are multiplied first. Distances of tags are rounded in grouping and
    refinement, so that people are hard to tell apart where theirs is less than 0.5 / tag_scale.
    tag_threshold: the tag distance, after tag_scale, below which a peak may join a person.
    nms_kernel, nms_padding: the max-pooling window in pixels, kernel = 2 padding + 1.
    use_detection_val, ignore_too_much: see `grouping.group`.
    adjust: move peaks a quarter of a pixel towards the higher neighbour, and to pixel centres.
    refine: look for the missing joints of every person.
    subpixel: place all joints by `subpixel` instead, whatever `adjust` says.
    oks_nms: drop people whose OKS with a better one is above this, see `doubles`; 0 drops nobody.
    sigmas: of the K joints, for oks_nms.

    The first image may wait for compilation, see `jit`. Raises ValueError for arguments out of
    range.
    """

    _find_peaks = staticmethod(find_peaks)

    def __init__(
        self,
        *,
        grouping_order: Sequence[int],
        max_people: int = 30,
        detection_threshold: float = 0.1,
        tag_scale: float = 1.0,
        tag_threshold: float = 1.0,
        nms_kernel: int = 5,
        nms_padding: int = 2,
        use_detection_val: bool = True,
        ignore_too_much: bool = False,
        adjust: bool = True,
        refine: bool = True,
        subpixel: bool = False,
        oks_nms: float = 0.0,
        sigmas: Sequence[float] = (),
    ) -> None:
        num_joints = len(grouping_order)
        if not num_joints or sorted(grouping_order) != list(range(num_joints)):
            raise ValueError(
                f"grouping_order is {list(grouping_order)}; "
                "it must hold each joint, from 0 on, once"
            )
        if max_people < 1:
            raise ValueError(f"max_people is {max_people}; it must be 1 or more")
        if not detection_threshold >= 0:
            raise ValueError(f"detection_threshold is {detection_threshold}; it must be 0 or more")
        if not tag_scale > 0:
            raise ValueError(f"tag_scale is {tag_scale}; it must be above 0")
        if nms_padding < 0 or nms_kernel != 2 * nms_padding + 1:
            raise ValueError(
                f"nms_kernel is {nms_kernel} and nms_padding {nms_padding}; "
                "the kernel must be twice the padding plus 1, for example 5 and 2"
            )
        if oks_nms and len(sigmas) != num_joints:
            raise ValueError(f"sigmas has length {len(sigmas)}; oks_nms needs {num_joints}")
        self.grouping_order = np.asarray(grouping_order, np.int64)
        self.tag_scale = tag_scale
        self.adjust = adjust
        self.refine = refine
        self.subpixel = subpixel
        self.oks_nms = oks_nms
        self.sigmas = tuple(sigmas)
        self.peak_settings: dict[str, Any] = {
            "limit": max_people,
            "threshold": detection_threshold,
            "radius": nms_padding,
        }
        self._group_settings: dict[str, Any] = {
            "max_people": max_people,
            "tag_threshold": tag_threshold,
            "use_detection_val": use_detection_val,
            "ignore_too_much": ignore_too_much,
        }

    def decode_arrays(self, heatmaps: Floats, tags: Floats) -> list[People]:
        """The people of each image, from heatmaps (B, K, H, W) and tags (B, K or 1, H, W, T).

        Raises ValueError where shapes do not fit, NonFiniteError where a value is not finite.
        """
        self._check_shapes(heatmaps.shape, tags.shape)
        heatmaps = np.ascontiguousarray(heatmaps, np.float32)
        tags = self.scaled(np.ascontiguousarray(tags, np.float32))
        people = [self._decode_image(*image) for image in zip(heatmaps, tags, strict=True)]
        return self.finish(people, heatmaps)

    def _check_shapes(self, heatmaps: Sequence[int], tags: Sequence[int]) -> None:
        joints = len(self.grouping_order)
        if len(heatmaps) != 4 or heatmaps[1] != joints or 0 in heatmaps[2:]:
            raise ValueError(
                f"heatmaps have shape {tuple(heatmaps)}; it should be (B, {joints}, H, W), "
                "one map for each joint"
            )
        batch, _, height, width = heatmaps
        shapes = [(batch, channels, height, width) for channels in (1, joints)]
        if len(tags) != 5 or tuple(tags[:4]) not in shapes or tags[4] == 0:
            raise ValueError(
                f"tags have shape {tuple(tags)}; it should be "
                f"({batch}, {joints} or 1, {height}, {width}, T)"
            )

    def finish(self, people: list[People], heatmaps: Any) -> list[People]:
        """The people of each image (B, K, H, W) as `subpixel` and `oks_nms` want them."""
        if self.subpixel:
            placed = place_between_pixels(heatmaps, [found.keypoints for found in people])
            people = [
                found._replace(keypoints=keypoints) for found, keypoints in zip(people, placed)
            ]
        return [self._only(found, self.kept(found)) for found in people] if self.oks_nms else people

    def _decode_image(self, heatmaps: Floats, tags: Floats) -> People:
        heatmap_bounds = tile_bounds(heatmaps[..., None])
        tag_bounds = tile_bounds(tags)
        if not (heatmap_bounds.finite and tag_bounds.finite):
            raise NonFiniteError(NOT_FINITE)
        peaks, peak_of_joint = self._grouped(heatmaps, tags, heatmap_bounds)
        means = mean_tags(peaks, peak_of_joint)
        people = self._people(peaks, peak_of_joint, means, heatmaps.shape[-1])
        persons, joints = np.nonzero(peak_of_joint < 0)
        if self.refine and len(persons):
            found = find_missing(heatmaps, tags, heatmap_bounds, tag_bounds, joints, means[persons])
            write_joints(people, persons, joints, found)
        return people

    def scaled(self, tags: Any) -> Any:
        """Tags, an array or a tensor, times tag_scale."""
        return tags if self.tag_scale == 1 else tags * self.tag_scale

    def grouped(self, heatmaps: Floats, tags: Floats) -> tuple[Peaks, PeakOfJoint]:
        """The peaks of one image's maps, and the people that grouping makes of them, see `group`.

        heatmaps: (K, H, W). tags: (K or 1, H, W, T). Both are contiguous.
        """
        return self._grouped(heatmaps, self.scaled(tags), tile_bounds(heatmaps[..., None]))

    def _grouped(
        self, heatmaps: Floats, tags: Floats, bounds: TileBounds
    ) -> tuple[Peaks, PeakOfJoint]:
        peaks = self._find_peaks(heatmaps, tags, bounds, **self.peak_settings)
        return peaks, group(peaks, self.grouping_order, **self._group_settings)

    def kept(self, people: People) -> NDArray[np.int64]:
        """The indices of the people who are not dropped as found twice; all of them without
        oks_nms.
        """
        if not self.oks_nms:
            return np.arange(len(people.scores))
        return without_doubles(people.keypoints, people.scores, self.sigmas, self.oks_nms)

    def _only(self, people: People, chosen: NDArray[np.int64]) -> People:
        tags = None if people.tags is None else people.tags[chosen]
        return People(people.keypoints[chosen], people.scores[chosen], tags)

    def _people(
        self, peaks: Peaks, peak_of_joint: PeakOfJoint, means: Floats, width: int
    ) -> People:
        """The people with the joints that grouping gave them."""
        points = np.stack([peaks.pixels % width, peaks.pixels // width], -1).astype(np.float32)
        if self.adjust:
            points += peaks.offsets + np.float32(0.5)
        joints = np.concatenate([points, peaks.scores[..., None]], -1)  # (K, M, 3)
        keypoints = joints[np.arange(len(joints)), peak_of_joint]  # (N, K, 3)
        keypoints[peak_of_joint < 0] = 0
        return People(keypoints, keypoints[..., 2].mean(1), means)


def write_joints(
    people: People,
    persons: NDArray[np.int64],
    joints: NDArray[np.int64],
    found: NDArray[np.float32],
) -> None:
    """Write the joints (n, 3) found for people, where the heatmap is positive."""
    positive = found[:, 2] > 0
    people.keypoints[persons[positive], joints[positive]] = found[positive]


def decoder_settings(cfg: Any, skeleton: Skeleton) -> dict[str, Any]:
    """The arguments of ArrayDecoder, from TEST.* and DATASET.MAX_NUM_PEOPLE.

    skeleton: has the centre joint if and only if the maps have it (Skeleton.with_center).
    """
    test = cfg.TEST
    return dict(
        grouping_order=skeleton.grouping_order,
        max_people=cfg.DATASET.MAX_NUM_PEOPLE,
        detection_threshold=test.DETECTION_THRESHOLD,
        tag_scale=test.TAG_SCALE,
        tag_threshold=test.TAG_THRESHOLD,
        nms_kernel=test.NMS_KERNEL,
        nms_padding=test.NMS_PADDING,
        use_detection_val=test.USE_DETECTION_VAL,
        ignore_too_much=test.IGNORE_TOO_MUCH,
        adjust=test.ADJUST,
        refine=test.REFINE,
        subpixel=test.SUBPIXEL,
        oks_nms=test.OKS_NMS,
        sigmas=skeleton.sigmas,
    )
