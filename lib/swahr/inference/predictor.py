"""Images in, people out: warping, the network with its test-time augmentation, decoding, and the
mapping back to the image.

Validation and users run the same code. The three steps can be called one by one (`prepare`, `maps`,
`decode`), so that one thread prepares images and another decodes people while the network runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swahr import geometry
from swahr.acceleration.compile import compile_network
from swahr.acceleration.cuda_graphs import CudaGraphs
from swahr.acceleration.cudnn_search import BoundedSearch
from swahr.acceleration.fuse import (
    fold_batch_norms,
    optimize_for_inference,
    refresh,
    supports_dtype,
    verified,
)
from swahr.codec.decode import Decoder, People, build_associative_decoder, build_decoder
from swahr.codec.fast import FastDecoder
from swahr.codec.maps import MapRule, Maps
from swahr.codec.sampled import SampledMaps, Size, TagMaps
from swahr.data.images import Image, normalize
from swahr.data.plausibility import flip_problem
from swahr.geometry import SIZE_STEP, InputGeometry
from swahr.inference.exported_network import ExportedNetwork, used_maps
from swahr.inference.fast_tta import Passes, heatmaps_of_scale, sampled_maps, tags_of_scale
from swahr.inference.streams import DecodingStreams
from swahr.inference.tta import (
    PassMaps,
    average_flips,
    average_scales,
    average_stages,
    drop_last_joint,
    mirror_back,
)
from swahr.models.build import amp_dtype
from swahr.models.network import PoseNetwork, StageOutput
from swahr.skeleton import Skeleton

logger = logging.getLogger(__name__)

# Of one image at its largest scale. A very thin image, whose short side becomes input_size, would
# fill the memory.
MAX_INPUT_PIXELS = 1 << 25


class PredictionError(ValueError):
    """An image that cannot be used; the message says why."""


class ScaleError(ValueError):
    """Test scales that the network cannot run at; the message says which scales it can."""


class Prediction(NamedTuple):
    """The P people found in one image.

    keypoints: (P, K, 3), x and y in image pixels and the score. scores: (P,). tags: (P, T), the
    mean tags of the people, one for each pass and each resolution whose tags are used, times
    TEST.TAG_SCALE; None from decoders without tags.
    """

    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]
    tags: NDArray[np.float32] | None = None


class ImageGeometry(NamedTuple):
    """Where one image lies on the network's inputs.

    scales: its geometry at each test scale, largest first.
    full_size: (w, h) of the input at scale 1, which need not be a test scale.
    """

    scales: tuple[InputGeometry, ...]
    full_size: tuple[int, int]

    @property
    def input_size(self) -> tuple[int, int]:
        """(w, h) of the largest input; images that share it share all their input sizes."""
        return self.scales[0].size


class PreparedBatch(NamedTuple):
    """B warped images that share their input sizes.

    images: (B, h, w, 3) uint8 at each scale, largest first.
    geometries: of each image.
    """

    images: list[Tensor]
    geometries: list[ImageGeometry]


class Predictor:
    """A network, a decoder and the steps between them.

    model: images (B, 3, h, w) -> a StageOutput for each resolution, low to high; in evaluation mode
    on `device`.
    decoder: maps -> people.
    num_keypoints: K of the result; a centre joint after them is dropped.
    input_size: px of the short side at scale 1. scales: test scales.
    use_heatmaps, use_tags: for each resolution, whether its maps are used.
    map_rules: of the maps of StageOutput.extra that the decoder reads.
    project: resize all maps to the input at scale 1, else to the maps of the largest scale.
    flip_index: of all joints, for flip testing; None for none.
    drop_center: the last joint is not decoded.
    batch_size: most images in one pass (twice as many with flip testing).
    size_divisor: the sides of the model's inputs must be multiples of it.
    input_dtype: of the images that the model takes.
    amp_dtype: of mixed precision by autocast; None for none.
    fast: tags are sampled where joints are, see codec.fast; decoder is a FastDecoder.

    fused: the copy of a network inside `model` that does the work, if there is one, see `refresh`.
    unfused: the network inside `model` where TEST.FUSE is False.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Sequence[StageOutput]],
        decoder: Decoder | FastDecoder,
        *,
        num_keypoints: int,
        input_size: int,
        use_heatmaps: Sequence[bool],
        use_tags: Sequence[bool],
        map_rules: Mapping[str, MapRule] | None = None,
        scales: Sequence[float] = (1.0,),
        flip_index: Sequence[int] | None = None,
        drop_center: bool = False,
        project: bool = True,
        batch_size: int = 1,
        size_divisor: int = 1,
        device: torch.device | str = "cpu",
        input_dtype: torch.dtype = torch.float32,
        amp_dtype: torch.dtype | None = None,
        fast: bool = False,
    ) -> None:
        """Raises ScaleError where images would not fit the model at the scales, ValueError where no
        heatmaps are used.
        """
        if not any(use_heatmaps):
            raise ValueError("use_heatmaps must be true for at least one resolution")
        check_scales(scales, size_divisor)
        self.model = model
        self.decoder = decoder
        self.num_keypoints = num_keypoints
        self.input_size = input_size
        self.scales = sorted(scales, reverse=True)
        self.use_heatmaps = list(use_heatmaps)
        self.use_tags = list(use_tags)
        self.map_rules = dict(map_rules or {})
        self.flip_index = flip_index
        self.drop_center = drop_center
        self.project = project
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.input_dtype = input_dtype
        self.amp_dtype = amp_dtype
        self.fast = fast
        self.search = BoundedSearch()
        self.streams = DecodingStreams(self.device)
        # Threads that decode; each keeps the maps of a batch in memory, which are small if fast.
        self.decoders = 2 if fast and self.device.type == "cuda" else 1
        self.fused: PoseNetwork | None = None
        self.unfused: PoseNetwork | ExportedNetwork | None = None

    @property
    def flips(self) -> bool:
        """Whether both passes of the flip test are made, here or in an exported network."""
        model = self.model
        inside = isinstance(model, ExportedNetwork) and model.description.flip
        return inside or self.flip_index is not None

    def __call__(self, images: Sequence[Image]) -> list[Prediction]:
        """Images (H, W, 3) uint8 RGB of any sizes -> the people of each, in the same order."""
        found: dict[int, Prediction] = {}
        for indices, batch in self.prepare(images):
            found |= zip(indices, self.decode(batch, self.maps(batch)))
        return [found[index] for index in range(len(images))]

    def geometries(self, width: int, height: int) -> ImageGeometry:
        """Where an image of this size lies on the network's inputs, at every scale."""

        def at(scale: float) -> InputGeometry:
            return geometry.input_geometry(width, height, self.input_size, scale, self.scales[-1])

        return ImageGeometry(tuple(at(scale) for scale in self.scales), at(1.0).size)

    def geometries_of(self, image: Image) -> ImageGeometry:
        """`geometries` of an image.

        Raises PredictionError where it is not an image, or empty, or so long and thin that its
        input would be too large.
        """
        if not _is_image(image):
            is_array = isinstance(image, np.ndarray)
            if is_array and not image.size:
                raise PredictionError(
                    f"an image must have pixels; this array is empty, of shape {image.shape}"
                )
            given = f"{image.dtype} {image.shape}" if is_array else type(image).__name__
            raise PredictionError(
                f"an image must be a uint8 array (height, width, 3) in RGB, not {given}"
            )
        height, width = image.shape[:2]
        geometries = self.geometries(width, height)
        size = geometries.input_size
        if size[0] * size[1] > MAX_INPUT_PIXELS:
            raise PredictionError(
                f"an image of {width} x {height} pixels is too long and thin: with a short side of "
                f"{self.input_size} pixels it would become {size[0]} x {size[1]}"
            )
        return geometries

    def prepare(
        self, images: Sequence[Image], geometries: Sequence[ImageGeometry] | None = None
    ) -> Iterator[tuple[list[int], PreparedBatch]]:
        """Batches of at most `batch_size` images of one input size, each with the indices of its
        images.

        geometries: of the images, where the caller has them from geometries_of. Raises
        PredictionError like geometries_of.
        """
        if geometries is None:
            geometries = [self.geometries_of(image) for image in images]
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image_geometry in enumerate(geometries):
            by_size.setdefault(image_geometry.input_size, []).append(index)
        for indices in by_size.values():
            for start in range(0, len(indices), self.batch_size):
                chosen = indices[start : start + self.batch_size]
                yield (
                    chosen,
                    self._collate([images[i] for i in chosen], [geometries[i] for i in chosen]),
                )

    def refresh(self, model: PoseNetwork) -> bool:
        """Take the weights that a network has now, where build_predictor was given that network.

        False where that is impossible; a new predictor must be built then.
        """
        if self.fused is None:
            return self.unfused is model
        if not refresh(self.fused, model.eval()):
            return False
        return verified(self.fused, model, _trial_size(model)) is self.fused

    @torch.inference_mode()
    def maps(self, batch: PreparedBatch) -> Maps | SampledMaps:
        """The maps of a batch over all passes, float32 on the device."""
        if not self.fast:
            return self.whole_maps(batch)
        width, height = batch.geometries[0].full_size
        maps = self._sampled_maps(batch.images, (height, width))
        maps.ready = self.streams.mark()
        return maps

    @torch.inference_mode()
    def whole_maps(self, batch: PreparedBatch) -> Maps:
        """`maps` at full size, also of a fast predictor; `whole_decoder` reads them."""
        width, height = batch.geometries[0].full_size
        maps = average_scales(
            self._maps_at(scale, of_scale, (height, width))
            for scale, of_scale in zip(self.scales, batch.images)
        )
        maps.ready = self.streams.mark()
        return maps

    @property
    def whole_decoder(self) -> Decoder:
        """The decoder of whole maps."""
        return self.decoder.rules if isinstance(self.decoder, FastDecoder) else self.decoder

    @torch.inference_mode()
    def decode(self, batch: PreparedBatch, maps: Maps | SampledMaps) -> list[Prediction]:
        """The people in the maps of a batch, in image pixels."""
        height, width = maps.heatmaps.shape[2:]
        with self.streams.after(maps.ready):
            if isinstance(maps, Maps):
                found = self.whole_decoder(maps)
            else:
                found = self.decoder(maps)  # type: ignore[arg-type]
        return [
            self._to_image(people, image_geometry, (width, height))
            for people, image_geometry in zip(found, batch.geometries)
        ]

    def aggregate(
        self,
        scale: float,
        outputs: Sequence[StageOutput],
        mirrored: Sequence[StageOutput] | None,
        size: Sequence[int],
    ) -> PassMaps:
        """The maps of images at one scale, from the network's outputs for them and for the mirrored
        images.

        size: (h, w) of the input at scale 1. Tags are comparable within one pass only, so that only
        those of scale 1 are used.
        """
        is_tag_scale = self._is_tag_scale(scale)
        use_tags = self.use_tags if is_tag_scale else ()
        averaged = {name: rule for name, rule in self.map_rules.items() if rule.average}
        maps = average_stages(
            outputs,
            use_heatmaps=self.use_heatmaps,
            use_tags=use_tags,
            map_rules=self.map_rules if is_tag_scale else averaged,
        )
        passes = [maps]
        if mirrored is not None and self.flip_index is not None:
            maps = average_stages(
                mirrored,
                use_heatmaps=self.use_heatmaps,
                use_tags=use_tags,
                map_rules=averaged,
            )
            passes.append(mirror_back(maps, self.flip_index, averaged))
        if self.drop_center:
            passes = [drop_last_joint(maps, self.map_rules) for maps in passes]
        return average_flips(passes, size=size if self.project else None)

    def _collate(
        self, images: Sequence[Image], geometries: Sequence[ImageGeometry]
    ) -> PreparedBatch:
        inputs = []
        for at_scale in zip(*(image_geometry.scales for image_geometry in geometries)):
            warped = np.stack([warp(*pair) for pair in zip(images, at_scale)])
            inputs.append(torch.from_numpy(warped))
        if self.device.type == "cuda":
            inputs = [batch.pin_memory() for batch in inputs]
        return PreparedBatch(inputs, list(geometries))

    def _maps_at(self, scale: float, images: Tensor, size: Sequence[int]) -> PassMaps:
        return self.maps_of(self._normalized(images), scale, size)

    def _normalized(self, images: Tensor) -> Tensor:
        """Images (B, h, w, 3) uint8 on the host -> (B, 3, h, w) on the device."""
        return normalize(images.to(self.device, non_blocking=True), torch.channels_last)

    def maps_of(self, images: Tensor, scale: float, size: Sequence[int]) -> PassMaps:
        """The maps of normalised images (B, 3, h, w) at one scale, over both passes of the flip
        test. size: as of `aggregate`.
        """
        count = images.shape[0]  # len() would fix the number of images of an exported network
        outputs = self._run(images)
        plain = [_select_images(stage, slice(count)) for stage in outputs]
        if self.flip_index is None:
            return self.aggregate(scale, plain, None, size)
        mirrored = [_select_images(stage, slice(count, None)) for stage in outputs]
        return self.aggregate(scale, plain, mirrored, size)

    def _run(self, images: Tensor) -> Sequence[StageOutput]:
        """The network's outputs for normalised images (B, 3, h, w), and for the mirrored images
        behind them in flip testing.
        """
        inputs = images.to(self.input_dtype)
        if self.flip_index is not None:
            inputs = torch.cat([inputs, inputs.flip(3)])
        mixed = torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None)
        on_gpu = self.device.type == "cuda"
        with mixed, self.search.of(inputs.shape) if on_gpu else nullcontext():
            return self.model(inputs)

    def _sampled_maps(self, images: Sequence[Tensor], full_size: Size) -> SampledMaps:
        heatmaps = []
        tags: list[TagMaps] = []
        size = full_size
        for scale, of_scale in zip(self.scales, images):
            outputs = self._run(self._normalized(of_scale))
            joints = outputs[-1].heatmaps.shape[1] - self.drop_center
            passes = Passes(self.use_heatmaps, self.use_tags, self.flip_index, joints)
            heatmaps.append(heatmaps_of_scale(outputs, passes))
            if not self.project and len(heatmaps) == 1:
                size = (heatmaps[0].maps.shape[2], heatmaps[0].maps.shape[3])
            if self._is_tag_scale(scale):
                tags = tags_of_scale(outputs, passes, [size])
        maps = sampled_maps(heatmaps, tags, size)
        assert isinstance(self.decoder, FastDecoder), "a fast predictor has a fast decoder"
        return self.decoder.begin(maps)

    def _is_tag_scale(self, scale: float) -> bool:
        return scale == 1 or len(self.scales) == 1

    def _to_image(
        self, people: People, image_geometry: ImageGeometry, size: tuple[int, int]
    ) -> Prediction:
        smallest = image_geometry.scales[-1]
        keypoints = people.keypoints[:, : self.num_keypoints].copy()
        keypoints[..., :2] = geometry.to_image(keypoints, smallest.center, smallest.box_scale, size)
        return Prediction(keypoints, people.scores, people.tags)


def check_scales(scales: Sequence[float], size_divisor: int) -> None:
    """Raises ScaleError unless the sides of every input are multiples of size_divisor.

    The sides are multiples of SIZE_STEP at the smallest scale, and grow in proportion to the scale.
    """
    if SIZE_STEP % size_divisor:
        raise ScaleError(
            f"the sides of test inputs are multiples of {SIZE_STEP}; "
            f"the network needs multiples of {size_divisor}"
        )
    longest = MAX_INPUT_PIXELS // SIZE_STEP
    for scale in scales:
        for side in range(SIZE_STEP, longest + 1, SIZE_STEP):
            if int(side * scale / min(scales)) % size_divisor:
                ratio = size_divisor / SIZE_STEP
                steps = range(int(1 / ratio) + 1)
                possible = ", ".join(f"{0.5 * (1 + n * ratio):g}" for n in steps)
                raise ScaleError(
                    f"most images cannot be tested at the scales {list(scales)}: the network needs "
                    f"sides that are multiples of {size_divisor}, so that each scale must be a "
                    f"multiple of {ratio:g} times the smallest one, for example {possible}"
                )


def check_test_scales(scales: Sequence[float], size_divisor: int) -> None:
    """Raises ScaleError, which names the key, where TEST.SCALE_FACTOR does not fit a network."""
    try:
        check_scales(scales, size_divisor)
    except ScaleError as error:
        raise ScaleError(f"TEST.SCALE_FACTOR: {error}") from None


def build_predictor(
    cfg: Any,
    model: PoseNetwork | ExportedNetwork,
    skeleton: Skeleton,
    device: torch.device | str = "cpu",
) -> Predictor:
    """The predictor of a configuration; skeleton is that of the annotations, without a centre.

    The model is moved to the device and set to evaluation mode; with TEST.FUSE a copy of it does
    the work. Raises ScaleError where TEST.SCALE_FACTOR does not fit the network.
    """
    device = torch.device(device)
    test = cfg.TEST
    check_test_scales(test.SCALE_FACTOR, getattr(model, "size_divisor", 1))
    if test.FLIP_TEST and (problem := flip_problem(skeleton)):
        logger.warning("%s (TEST.FLIP_TEST is True)", problem)
    model = model.to(device).eval()
    network, fused, input_dtype, autocast_dtype = _fast_network(cfg, model, device)
    use_heatmaps, use_tags = used_maps(cfg)
    flip = test.FLIP_TEST
    map_rules = getattr(getattr(model, "head", None), "map_rules", {})
    if isinstance(model, ExportedNetwork):
        use_heatmaps = model.use_heatmaps
        use_tags = model.use_tags
        map_rules = model.map_rules
        flip = flip and not model.description.flip  # else both passes are in the file
    network_skeleton = skeleton.trained(cfg.DATASET.WITH_CENTER)
    decoded_skeleton = skeleton if test.IGNORE_CENTER else network_skeleton
    predictor = Predictor(
        network,
        _decoder(cfg, decoded_skeleton),
        num_keypoints=skeleton.num_keypoints,
        input_size=cfg.DATASET.INPUT_SIZE,
        scales=test.SCALE_FACTOR,
        flip_index=network_skeleton.flip_index if flip else None,
        drop_center=network_skeleton.num_keypoints > decoded_skeleton.num_keypoints,
        use_heatmaps=use_heatmaps,
        use_tags=use_tags,
        map_rules=map_rules,
        project=test.PROJECT2IMAGE,
        device=device,
        size_divisor=getattr(model, "size_divisor", 1),
        input_dtype=input_dtype,
        amp_dtype=autocast_dtype,
        # One image keeps the cores of a CPU busy; larger batches only leave its caches.
        batch_size=test.IMAGES_PER_GPU if device.type == "cuda" else 1,
        fast=test.FAST_DECODE,
    )
    predictor.fused = fused
    predictor.unfused = None if test.FUSE else model
    return predictor


def _decoder(cfg: Any, skeleton: Skeleton) -> Decoder | FastDecoder:
    fast = cfg.TEST.FAST_DECODE
    return (
        FastDecoder(build_associative_decoder(cfg, skeleton))
        if fast
        else build_decoder(cfg, skeleton)
    )


def _fast_network(
    cfg: Any, model: Any, device: torch.device
) -> tuple[Any, PoseNetwork | None, torch.dtype, torch.dtype | None]:
    """The network as TEST.* wants it run, the fused copy in it, if that does the work, the dtype of
    its inputs, and that of autocast, if any.
    """
    fused = None
    test = cfg.TEST
    input_dtype = torch.float32
    if isinstance(model, ExportedNetwork):
        return model, None, input_dtype, None  # the file and its engine decide how it runs
    autocast_dtype = amp_dtype(cfg, device)
    if test.FUSE:
        if autocast_dtype is not None and supports_dtype(autocast_dtype, device):
            input_dtype = autocast_dtype
            autocast_dtype = None
        # torch.compile fuses by itself what optimize_for_inference would fuse on a CPU.
        fast: PoseNetwork = (
            fold_batch_norms(model).to(input_dtype)
            if test.COMPILE
            else optimize_for_inference(model, dtype=input_dtype, cudnn=test.CUDNN_FUSE)
        )
        model = verified(fast, model, _trial_size(model))
        fused = fast if model is fast else None
    network = compile_network(model, "TEST.COMPILE", device) if test.COMPILE else model
    if test.CUDA_GRAPHS and device.type == "cuda":
        network = CudaGraphs(network)
    return network, fused, input_dtype, autocast_dtype


def _trial_size(model: PoseNetwork) -> tuple[int, int]:
    """(h, w) of the image on which a fused network is compared with the plain one."""
    return (4 * model.size_divisor, 4 * model.size_divisor)


def _is_image(image: Any) -> bool:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        return False
    return image.ndim == 3 and image.shape[2] == 3 and image.size > 0


def warp(image: Image, placement: InputGeometry) -> Image:
    """The network's input (h, w, 3) uint8 for an image, before it is normalised; what lies outside
    the image is black.
    """
    matrix = geometry.input_matrix(placement.center, placement.box_scale, placement.size)
    return cv2.warpAffine(image, matrix, placement.size)  # type: ignore[return-value]


def _select_images(stage: StageOutput, images: slice) -> StageOutput:
    """The maps of some of the images as contiguous float32, without the scale maps.

    Later steps then give the same results for every memory layout of the network.
    """

    def plain(maps: Tensor) -> Tensor:
        return maps[images].to(torch.float32, memory_format=torch.contiguous_format)

    return stage._replace(scales=None).map(plain)
