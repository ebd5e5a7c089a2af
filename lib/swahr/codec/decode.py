"""Heatmaps and tags to people: peaks, grouping, adjustment, refinement.

This is the inverse of `targets`. On the CPU compiled loops read the maps, image by image. On other
devices tensor operations read the whole batch at once, with two small copies to the host: the peaks
and the joints that were missing. Grouping is done on the host.

To add a decoder, write a function that builds one from the configuration and the skeleton, add it
to DECODERS, and name it in TEST.DECODER.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swahr.codec.doubles import without_doubles
from swahr.codec.grouping import PeakOfJoint, group, mean_tags
from swahr.codec.maps import Maps
from swahr.codec.peaks import Peaks, find_peaks, find_peaks_batch
from swahr.codec.refine import find_missing, find_missing_batch
from swahr.codec.subpixel import place_between_pixels
from swahr.codec.tile_bounds import NOT_FINITE, Floats, tile_bounds
from swahr.parts import choose
from swahr.skeleton import Skeleton


class People(NamedTuple):
    """N people of one image, in the order in which they were created.

    keypoints: (N, K, 3), x and y in map pixels and the score; 0 where a joint is missing.
    scores: (N,), the mean score over the K joints before refinement.
    tags: (N, T), the mean tag of the joints before refinement; None from decoders without tags.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    tags: NDArray[np.float32] | None = None


Decoder = Callable[[Maps], list[People]]  # the maps of B images -> the people of each


class AssociativeDecoder:
    """Groups peaks by their tags, with the rules and results of the published HigherHRNet and SWAHR
    code.

    grouping_order: the K joints in the order in which they are grouped.
    max_people: peaks kept of each joint, and people that can be joined.
    detection_threshold: the score that a peak exceeds.
    tag_threshold: the tag distance below which a peak may join a person.
    nms_kernel, nms_padding: the max-pooling window in pixels, kernel = 2 padding + 1.
    use_detection_val, ignore_too_much: see `grouping.group`.
    adjust: move peaks a quarter of a pixel towards the higher neighbour, and to pixel centres.
    refine: look for the missing joints of every person.
    subpixel: place all joints by `subpixel` instead, whatever `adjust` says.
    oks_nms: drop people whose OKS with a better one is above this, see `doubles`; 0 drops nobody.
    sigmas: of the K joints, for oks_nms.

    The first image may wait for compilation, see `jit`; `warm_up` compiles beforehand.
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
        if nms_padding < 0 or nms_kernel != 2 * nms_padding + 1:
            raise ValueError(
                f"nms_kernel is {nms_kernel} and nms_padding {nms_padding}; "
                "the kernel must be twice the padding plus 1, for example 5 and 2"
            )
        if oks_nms and len(sigmas) != num_joints:
            raise ValueError(f"sigmas has length {len(sigmas)}; oks_nms needs {num_joints}")
        self.grouping_order = np.asarray(grouping_order, np.int64)
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

    @torch.no_grad()
    def __call__(self, maps: Maps) -> list[People]:
        """The people of each image, from heatmaps (B, K, H, W) and tags (B, K or 1, H, W, T) on one
        device.

        Raises ValueError where the maps have no tags, shapes do not fit or a value is not finite.
        """
        heatmaps, tags = self._check(maps)
        heatmaps = heatmaps.detach().float().contiguous()
        tags = tags.detach().float().contiguous()
        on_cpu = heatmaps.device.type == "cpu"
        people = (self.decode_images if on_cpu else self.decode_batch)(heatmaps, tags)
        return self.finish(people, heatmaps)

    def finish(self, people: list[People], heatmaps: torch.Tensor) -> list[People]:
        """The people of each image (B, K, H, W) as `subpixel` and `oks_nms` want them."""
        if self.subpixel:
            placed = place_between_pixels(heatmaps, [found.keypoints for found in people])
            people = [
                found._replace(keypoints=keypoints) for found, keypoints in zip(people, placed)
            ]
        return [self._without_doubles(found) for found in people] if self.oks_nms else people

    def warm_up(self, tag_maps: int = 2) -> None:
        """Compile the kernels that decoding on the CPU needs, or load them if an earlier process
        has compiled them.
        """
        joints = len(self.grouping_order)
        # Large enough for find_peaks to use its kernel.
        side = 8 + 8 * math.isqrt(self.peak_settings["limit"])
        heatmaps = torch.zeros(1, joints, side, side)
        # One joint has peaks and the others are missing, so that refinement runs too.
        heatmaps[0, self.grouping_order[0], ::8, ::8] = 1 + self.peak_settings["threshold"]
        self(Maps(heatmaps, torch.zeros(1, joints, side, side, tag_maps)))

    def _check(self, maps: Maps) -> tuple[torch.Tensor, torch.Tensor]:
        heatmaps, tags = maps.heatmaps, maps.tags
        joints = len(self.grouping_order)
        if tags is None:
            raise ValueError("the maps have no tags, by which this decoder groups joints")
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
        return heatmaps, tags

    def decode_images(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> list[People]:
        """Decode contiguous float32 maps on the CPU, image by image, with compiled loops."""
        return [
            self._decode_image(*image) for image in zip(heatmaps.numpy(), tags.numpy(), strict=True)
        ]

    def _decode_image(self, heatmaps: Floats, tags: Floats) -> People:
        heatmap_bounds = tile_bounds(heatmaps[..., None])
        tag_bounds = tile_bounds(tags)
        if not (heatmap_bounds.finite and tag_bounds.finite):
            raise ValueError(NOT_FINITE)
        peaks = find_peaks(heatmaps, tags, heatmap_bounds, **self.peak_settings)
        peak_of_joint = group(peaks, self.grouping_order, **self._group_settings)
        means = mean_tags(peaks, peak_of_joint)
        people = self._people(peaks, peak_of_joint, means, heatmaps.shape[-1])
        persons, joints = np.nonzero(peak_of_joint < 0)
        if self.refine and len(persons):
            found = find_missing(heatmaps, tags, heatmap_bounds, tag_bounds, joints, means[persons])
            _write_joints(people, persons, joints, found)
        return people

    def decode_batch(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> list[People]:
        """Decode contiguous float32 maps on any device, the whole batch at once, with tensor
        operations; the results are those of decode_images.
        """
        if not len(heatmaps):
            return []
        peaks = find_peaks_batch(heatmaps, tags, **self.peak_settings)
        return self.group_batch(
            peaks, heatmaps.shape[-1], partial(find_missing_batch, heatmaps, tags)
        )

    def group_batch(
        self, peaks: Sequence[Peaks], width: int, search: Callable[..., Floats]
    ) -> list[People]:
        """The people that the peaks of each image make, with the joints that they miss.

        width: of the maps, px. search: as find_missing_batch, from images on.
        """
        people = []
        means = []
        missing = []  # of each image: image, person and joint (3, n)
        for image, peaks_of_image in enumerate(peaks):
            peak_of_joint = group(peaks_of_image, self.grouping_order, **self._group_settings)
            means.append(mean_tags(peaks_of_image, peak_of_joint))
            people.append(self._people(peaks_of_image, peak_of_joint, means[-1], width))
            persons, joints = np.nonzero(peak_of_joint < 0)
            missing.append(np.stack([np.full_like(persons, image), persons, joints]))
        images, persons, joints = np.concatenate(missing, 1)
        if self.refine and len(images):
            missing_means = np.concatenate(
                [tags_of[part[1]] for tags_of, part in zip(means, missing, strict=True)]
            )
            found = search(images, joints, missing_means)
            for image, people_of_image in enumerate(people):
                own = images == image
                _write_joints(people_of_image, persons[own], joints[own], found[own])
        return people

    def _without_doubles(self, people: People) -> People:
        stay = without_doubles(people.keypoints, people.scores, self.sigmas, self.oks_nms)
        tags = None if people.tags is None else people.tags[stay]
        return People(people.keypoints[stay], people.scores[stay], tags)

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


def _write_joints(
    people: People,
    persons: NDArray[np.int64],
    joints: NDArray[np.int64],
    found: NDArray[np.float32],
) -> None:
    """Write the joints (n, 3) found for people, where the heatmap is positive."""
    positive = found[:, 2] > 0
    people.keypoints[persons[positive], joints[positive]] = found[positive]


def build_associative_decoder(cfg: Any, skeleton: Skeleton) -> AssociativeDecoder:
    """The decoder of TEST.* and DATASET.MAX_NUM_PEOPLE, see build_decoder."""
    test = cfg.TEST
    return AssociativeDecoder(
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
        subpixel=test.SUBPIXEL,
        oks_nms=test.OKS_NMS,
        sigmas=skeleton.sigmas,
    )


DECODERS: dict[str, Callable[[Any, Skeleton], Decoder]] = {
    "associative": build_associative_decoder,
}


def build_decoder(cfg: Any, skeleton: Skeleton) -> Decoder:
    """The decoder that TEST.DECODER names.

    skeleton: has the centre joint if and only if the maps have it (Skeleton.with_center).
    """
    return choose(DECODERS, cfg.TEST.DECODER, "TEST.DECODER")(cfg, skeleton)
