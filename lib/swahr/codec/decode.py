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
from typing import Any

import numpy as np
import torch

from swahr.codec.associative import ArrayDecoder, People, decoder_settings, write_joints
from swahr.codec.grouping import group, mean_tags
from swahr.codec.maps import Maps
from swahr.codec.peaks import Peaks
from swahr.codec.peaks_batch import find_peaks_as_topk, find_peaks_batch
from swahr.codec.refine_batch import find_missing_batch
from swahr.codec.tile_bounds import Floats
from swahr.parts import choose
from swahr.skeleton import Skeleton

Decoder = Callable[[Maps], list[People]]  # the maps of B images -> the people of each


class AssociativeDecoder(ArrayDecoder):
    """ArrayDecoder for tensors on any device.

    The first image may wait for compilation, see `jit`; `warm_up` compiles beforehand.
    """

    _find_peaks = staticmethod(find_peaks_as_topk)

    @torch.no_grad()
    def __call__(self, maps: Maps) -> list[People]:
        """The people of each image, from heatmaps (B, K, H, W) and tags (B, K or 1, H, W, T) on one
        device.

        Raises ValueError where the maps have no tags or shapes do not fit, NonFiniteError where a
        value is not finite.
        """
        heatmaps, tags = self._check(maps)
        heatmaps = heatmaps.detach().float().contiguous()
        tags = self.scaled(tags.detach().float().contiguous())
        on_cpu = heatmaps.device.type == "cpu"
        people = (self.decode_images if on_cpu else self.decode_batch)(heatmaps, tags)
        return self.finish(people, heatmaps)

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
        if tags is None:
            raise ValueError("the maps have no tags, by which this decoder groups joints")
        self._check_shapes(heatmaps.shape, tags.shape)
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
                write_joints(people_of_image, persons[own], joints[own], found[own])
        return people


def build_associative_decoder(cfg: Any, skeleton: Skeleton) -> AssociativeDecoder:
    """The decoder of TEST.* and DATASET.MAX_NUM_PEOPLE, see build_decoder."""
    return AssociativeDecoder(**decoder_settings(cfg, skeleton))


DECODERS: dict[str, Callable[[Any, Skeleton], Decoder]] = {
    "associative": build_associative_decoder,
}


def build_decoder(cfg: Any, skeleton: Skeleton) -> Decoder:
    """The decoder that TEST.DECODER names.

    skeleton: has the centre joint if and only if the maps have it (Skeleton.with_center).
    """
    return choose(DECODERS, cfg.TEST.DECODER, "TEST.DECODER")(cfg, skeleton)
