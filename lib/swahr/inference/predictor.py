"""Images in, people out: warping, the network with its test-time augmentation, decoding, and the
way back.

Validation and users run the same code. The three steps can be called one by one (`prepare`, `maps`,
`decode`), so that images are prepared by one thread and people decoded by another while the network
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swahr import geometry
from swahr.acceleration.cuda_graphs import CudaGraphs
from swahr.acceleration.fuse import (
    fold_batch_norms,
    optimize_for_inference,
    supports_dtype,
    verified,
)
from swahr.codec.decode import Decoder, build_decoder
from swahr.data.images import Image, normalize
from swahr.inference.tta import Maps, average_flips, average_scales, average_stages
from swahr.models.build import amp_dtype
from swahr.models.network import PoseNetwork, StageOutput
from swahr.skeleton import Skeleton

# Of one image at its largest scale: a thread of pixels, stretched to the short side, would fill all
# memory.
MAX_INPUT_PIXELS = 1 << 25


class PredictionError(ValueError):
    """An image that cannot be looked at; the message says why."""


class Prediction(NamedTuple):
    """The P people found in one image: keypoints (P, K, 3) as x, y in image pixels and score, and
    scores (P,).
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]


class PreparedBatch(NamedTuple):
    """B images that share their input sizes, warped.

    images: (B, h, w, 3) uint8 of every scale, largest first. places: where each image lies on the
    input of the
    smallest scale. size: (w, h) of the input at scale 1.
    """

    images: list[Tensor]
    places: list[geometry.InputGeometry]
    size: tuple[int, int]


class Predictor:
    """A network and a decoder, with the way in between.

    model: images (B, 3, h, w) -> a StageOutput for each resolution, in evaluation mode on `device`.
    decoder: maps -> people. num_keypoints: K of what is returned; a centre behind them is left out.
    input_size: px of the short side at scale 1. scales: test scales. project: all maps are resized
    to the input at scale 1, else to the maps of the largest scale. flip_index: of all joints, for
    flip testing; None is without. use_heatmaps, use_tags: for each resolution whether its maps
    count. drop_center: the last joint is not decoded. batch_size: most images in one pass (twice as
    many with flip testing). input_dtype: of the images that the model takes. amp_dtype: of mixed
    precision by autocast, if any.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Sequence[StageOutput]],
        decoder: Decoder,
        *,
        num_keypoints: int,
        input_size: int,
        use_heatmaps: Sequence[bool],
        use_tags: Sequence[bool],
        scales: Sequence[float] = (1.0,),
        flip_index: Sequence[int] | None = None,
        drop_center: bool = False,
        project: bool = True,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        input_dtype: torch.dtype = torch.float32,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        if not any(use_heatmaps):
            raise ValueError(
                "no resolution's heatmaps are both learnt and used (LOSS.WITH_HEATMAPS_LOSS, "
                "TEST.WITH_HEATMAPS)"
            )
        self.model = model
        self.decoder = decoder
        self.num_keypoints = num_keypoints
        self.input_size = input_size
        self.scales = sorted(scales, reverse=True)
        self.use_heatmaps = list(use_heatmaps)
        self.use_tags = list(use_tags)
        self.flip_index = flip_index
        self.drop_center = drop_center
        self.project = project
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.input_dtype = input_dtype
        self.amp_dtype = amp_dtype

    def __call__(self, images: Sequence[Image]) -> list[Prediction]:
        """Images (H, W, 3) uint8 RGB of any sizes -> the people of each, in the same order."""
        found: dict[int, Prediction] = {}
        for numbers, batch in self.prepare(images):
            found |= zip(numbers, self.decode(batch, *self.maps(batch)))
        return [found[number] for number in range(len(images))]

    def prepare(self, images: Sequence[Image]) -> Iterator[tuple[list[int], PreparedBatch]]:
        """Batches of at most `batch_size` images of one input size, each with the numbers of its
        images.

        Raises PredictionError as input_size_of.
        """
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(self.input_size_of(image), []).append(number)
        for numbers in by_size.values():
            for start in range(0, len(numbers), self.batch_size):
                chosen = numbers[start : start + self.batch_size]
                yield chosen, self._collate([images[number] for number in chosen])

    @torch.inference_mode()
    def maps(self, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """Heatmaps (B, K, h, w) and tags (B, K or 1, h, w, T) of a batch over all passes, float32
        on the device.
        """
        return average_scales(
            self._maps_at(scale, images, batch.size[::-1])
            for scale, images in zip(self.scales, batch.images)
        )

    @torch.inference_mode()
    def decode(self, batch: PreparedBatch, heatmaps: Tensor, tags: Tensor) -> list[Prediction]:
        """The people in the maps of a batch, in image pixels."""
        size = (heatmaps.shape[3], heatmaps.shape[2])
        return [
            self._to_image(people.keypoints, people.scores, place, size)
            for people, place in zip(self.decoder(heatmaps, tags), batch.places)
        ]

    def aggregate(
        self,
        scale: float,
        outputs: Sequence[StageOutput],
        mirrored: Sequence[StageOutput] | None,
        size: Sequence[int],
    ) -> Maps:
        """What the network said of images at one scale, and of them mirrored -> their maps. size:
        (h, w) at scale 1.

        Tags are comparable within one pass only, so those of scale 1 are all that is used.
        """
        use_tags = self.use_tags if scale == 1 or len(self.scales) == 1 else ()
        passes = [average_stages(outputs, use_heatmaps=self.use_heatmaps, use_tags=use_tags)]
        if mirrored is not None:
            passes.append(
                average_stages(
                    mirrored,
                    use_heatmaps=self.use_heatmaps,
                    use_tags=use_tags,
                    mirrored_by=self.flip_index,
                )
            )
        return average_flips(
            passes, size=size if self.project else None, drop_center=self.drop_center
        )

    def input_size_of(self, image: Image) -> tuple[int, int]:
        """Size (w, h) of the network's largest input for an image; images that share it can share a
        batch.

        Raises PredictionError for what is no image, and for one so long and thin that its input
        would be too large.
        """
        if (
            getattr(image, "dtype", None) != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or not image.size
        ):
            given = (
                f"{image.dtype} {image.shape}"
                if isinstance(image, np.ndarray)
                else type(image).__name__
            )
            raise PredictionError(
                f"an image must be a uint8 array (height, width, 3) in RGB, not {given}"
            )
        height, width = image.shape[:2]
        size = self.place(width, height, self.scales[0]).size
        if size[0] * size[1] > MAX_INPUT_PIXELS:
            raise PredictionError(
                f"an image of {width} x {height} pixels is too long and thin: with a short side of "
                f"{self.input_size} pixels it would become {size[0]} x {size[1]}"
            )
        return size

    def place(self, width: int, height: int, scale: float) -> geometry.InputGeometry:
        """Where an image of this size lies on the network's input at one of the scales."""
        return geometry.input_geometry(width, height, self.input_size, scale, self.scales[-1])

    def _collate(self, images: Sequence[Image]) -> PreparedBatch:
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        warped = []
        for scale in self.scales:
            places = [self.place(*size, scale) for size in sizes]
            warped.append(
                torch.from_numpy(np.stack([_warp(*pair) for pair in zip(images, places)]))
            )
        if self.device.type == "cuda":
            warped = [inputs.pin_memory() for inputs in warped]
        return PreparedBatch(warped, places, self.place(*sizes[0], 1.0).size)

    def _maps_at(self, scale: float, images: Tensor, size: Sequence[int]) -> Maps:
        inputs = normalize(images.to(self.device, non_blocking=True), torch.channels_last).to(
            self.input_dtype
        )
        if self.flip_index is not None:
            inputs = torch.cat([inputs, inputs.flip(3)])
        with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
            outputs = self.model(inputs)
        plain = [_part(stage, slice(len(images))) for stage in outputs]
        mirrored = [_part(stage, slice(len(images), None)) for stage in outputs]
        return self.aggregate(scale, plain, None if self.flip_index is None else mirrored, size)

    def _to_image(
        self,
        keypoints: NDArray[np.float32],
        scores: NDArray[np.float32],
        place: geometry.InputGeometry,
        size: tuple[int, int],
    ) -> Prediction:
        keypoints = keypoints[:, : self.num_keypoints].copy()
        keypoints[..., :2] = geometry.to_image(keypoints, place.center, place.box_scale, size)
        return Prediction(keypoints, scores)


def build_predictor(
    cfg: Any, model: PoseNetwork, skeleton: Skeleton, device: torch.device | str = "cpu"
) -> Predictor:
    """The predictor of a configuration; skeleton is that of the annotations, without a centre.

    The model is moved to the device and set to evaluation mode; with TEST.FUSE a copy of it does
    the work.
    """
    device = torch.device(device)
    test = cfg.TEST
    loss = cfg.LOSS
    model = model.to(device).eval()
    dtype = torch.float32
    autocast = amp_dtype(cfg)
    if test.FUSE:
        if autocast is not None and supports_dtype(autocast, device):
            dtype = autocast
            autocast = None
        # torch.compile fuses by itself what optimize_for_inference would on a CPU.
        fast = (
            fold_batch_norms(model).to(dtype)
            if test.COMPILE
            else optimize_for_inference(model, dtype=dtype)
        )
        model = verified(fast, model, (4 * model.size_divisor,) * 2)
    network: Any = torch.compile(model) if test.COMPILE else model
    if test.CUDA_GRAPHS and device.type == "cuda":
        network = CudaGraphs(network)
    seen = skeleton.with_center() if cfg.DATASET.WITH_CENTER else skeleton
    kept = skeleton if test.IGNORE_CENTER else seen
    return Predictor(
        network,
        build_decoder(cfg, kept),
        num_keypoints=skeleton.num_keypoints,
        input_size=cfg.DATASET.INPUT_SIZE,
        scales=test.SCALE_FACTOR,
        flip_index=seen.flip_index if test.FLIP_TEST else None,
        drop_center=seen.num_keypoints > kept.num_keypoints,
        use_heatmaps=[
            learnt and used for learnt, used in zip(loss.WITH_HEATMAPS_LOSS, test.WITH_HEATMAPS)
        ],
        use_tags=[learnt and used for learnt, used in zip(loss.WITH_AE_LOSS, test.WITH_AE)],
        project=test.PROJECT2IMAGE,
        device=device,
        input_dtype=dtype,
        amp_dtype=autocast,
        # One image fills the cores of a CPU; larger batches only leave its caches.
        batch_size=test.IMAGES_PER_GPU if device.type == "cuda" else 1,
    )


def _warp(image: Image, place: geometry.InputGeometry) -> Image:
    """The network's input for an image; what lies beyond the image is black."""
    matrix = geometry.input_matrix(place.center, place.box_scale, place.size)
    return cv2.warpAffine(image, matrix, place.size)  # type: ignore[return-value]


def _part(stage: StageOutput, part: slice) -> StageOutput:
    """Some of the images, as plain float32: what follows comes out the same, whatever layout the
    network works in.
    """

    def plain(maps: Tensor) -> Tensor:
        return maps[part].to(torch.float32, memory_format=torch.contiguous_format)

    return StageOutput(
        None, plain(stage.heatmaps), None if stage.tags is None else plain(stage.tags)
    )
