"""A trained network in two lines: `model = swahr.load(...)`, `result = model("photo.jpg")`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swahr.config import ConfigError, configured_skeleton, load_config
from swahr.data.images import read_image
from swahr.distributed.comm import select_device
from swahr.inference.load import load_network
from swahr.inference.predictor import Predictor, build_predictor
from swahr.models.published_names import describe_settings
from swahr.models.weights import read_state_dict
from swahr.results import Image, Result, make_result
from swahr.skeleton import Skeleton

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
RUN_WEIGHTS = ("model_best.pth.tar", "final_state.pth.tar")
# The published networks, by the channels of their first branch: the file that describes the rest.
PUBLISHED = {
    32: "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml",
    48: "experiments/coco/higher_hrnet/w48_640_adam_lr1e-3.yaml",
}


class LoadError(ValueError):
    """An argument of `load` or of a model cannot be used; the message says what would be right."""


class PoseModel:
    """A network with its predictor: call it on images, get a `Result` for each.

    skeleton: the keypoints of the results. threshold: people with a lower score are left out.
    Calls from several threads are taken one after the other.
    """

    def __init__(
        self, predictor: Predictor, skeleton: Skeleton, *, threshold: float = 0.0, source: str = ""
    ) -> None:
        self.predictor = predictor
        self.skeleton = skeleton
        self.threshold = threshold
        self.source = source
        self._lock = Lock()

    def __repr__(self) -> str:
        flip = "flip test" if self.predictor.flip_index is not None else "no flip test"
        scales = ", ".join(f"{scale:g}" for scale in self.predictor.scales)
        return (
            f"PoseModel({self.source!r}: {self.skeleton.num_keypoints} keypoints, input "
            f"{self.predictor.input_size} px, {flip}, scales {scales}, {self.predictor.device})"
        )

    def __call__(self, images: Any) -> Any:
        """The people of an image -> Result; of several -> a list of Results, in their order.

        images: a path, an array (H, W, 3) uint8 RGB, a PIL image, a tensor (3, H, W), uint8 or
        float from 0 to 1; or several: a list, a folder, a pattern such as "photos/*.jpg", a
        generator.
        LoadError where there is no such file, ImageError where a file is no image.
        """
        several, sources = _sources(images)
        results = list(self._run(sources))
        return results if several else results[0]

    def stream(self, images: Any) -> Iterator[Result]:
        """As a call, one Result after the other, for more images than fit in memory."""
        return self._run(_sources(images)[1])

    def _run(self, sources: Iterable[Any]) -> Iterator[Result]:
        size = max(self.predictor.batch_size, 1)
        batch: list[tuple[str, Image]] = []
        for number, item in enumerate(sources):
            batch.append(_read(item, number))
            if len(batch) == size:
                yield from self._predict(batch)
                batch = []
        if batch:
            yield from self._predict(batch)

    def _predict(self, batch: Sequence[tuple[str, Image]]) -> list[Result]:
        with self._lock:
            predictions = self.predictor([image for _, image in batch])
        results = []
        for (name, image), people in zip(batch, predictions):
            sure = people.scores >= self.threshold
            results.append(
                make_result(name, image, people.keypoints[sure], people.scores[sure], self.skeleton)
            )
        return results


def load(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str | None = None,
    flip: bool | None = None,
    scales: Sequence[float] | None = None,
    threshold: float = 0.0,
    max_people: int | None = None,
    batch_size: int | None = None,
    settings: Sequence[Any] = (),
) -> PoseModel:
    """A model that is ready to use.

    source: a run's folder, an experiment's YAML file, or a file of weights (one of training's, or a
    published one, whose width, keypoints and scale heads are told from its tensors).
    weights: the file of weights for a YAML file; the run's own best ones where it is None.
    device: "cpu", "cuda" or "cuda:1"; a GPU where there is one if None.
    flip, scales, max_people, batch_size: of testing, in place of the configuration's.
    settings: further KEY VALUE pairs. LoadError, ConfigError or CheckpointError say what is wrong.
    """
    cfg_path, weights_path, described = _find(
        Path(source), None if weights is None else Path(weights)
    )
    chosen: dict[str, Any] = {
        "TEST.FLIP_TEST": flip,
        "TEST.SCALE_FACTOR": None if scales is None else list(scales),
        "DATASET.MAX_NUM_PEOPLE": max_people,
        "TEST.IMAGES_PER_GPU": batch_size,
    }
    pairs = [str(part) for key, value in described.items() for part in (key, value)]
    pairs += [
        str(part) for key, value in chosen.items() if value is not None for part in (key, value)
    ]
    cfg = load_config(cfg_path, [*pairs, *map(str, settings)])
    skeleton = configured_skeleton(cfg)
    where = select_device(device or cfg.DEVICE)
    network = load_network(cfg, weights_path, where)
    predictor = build_predictor(cfg, network, skeleton, where)
    return PoseModel(predictor, skeleton, threshold=threshold, source=str(weights_path))


def _find(source: Path, weights: Path | None) -> tuple[Path, Path, dict[str, Any]]:
    """The YAML file, the weights, and settings that the weights' tensors tell."""
    if source.is_dir():
        cfg_path = source / "config.yaml"
        if not cfg_path.is_file():
            raise LoadError(f"{source}: the folder has no config.yaml, so it is not that of a run")
        return cfg_path, weights or _run_weights(source), {}
    if source.suffix in (".yaml", ".yml"):
        if weights is None:
            raise LoadError(f"{source}: which weights? swahr.load({str(source)!r}, weights=FILE)")
        return source, weights, {}
    if not source.exists():
        raise LoadError(f"{source}: no such file or folder")
    described = describe_settings(read_state_dict(source))
    return _published(source, described)


def _run_weights(folder: Path) -> Path:
    for name in RUN_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise LoadError(f"{folder}: the run has neither {' nor '.join(RUN_WEIGHTS)} yet")


def _published(source: Path, described: dict[str, Any]) -> tuple[Path, Path, dict[str, Any]]:
    channels = described.get("MODEL.EXTRA.STAGE2.NUM_CHANNELS", [0])[0]
    joints = described.get("MODEL.NUM_JOINTS")
    if joints is None:
        raise LoadError(
            f"{source}: its tensors do not tell the network; give the YAML file: "
            f"swahr.load(YAML, weights={str(source)!r})"
        )
    from swahr.config import resolve_path

    sets = {17: ("coco_kpt", "coco", "coco"), 14: ("crowd_pose_kpt", "crowd_pose", "crowd_pose")}
    if joints not in sets:
        raise LoadError(
            f"{source}: has {joints} keypoints, so its skeleton is not known; give the YAML file: "
            f"swahr.load(YAML, weights={str(source)!r})"
        )
    train, test, skeleton = sets[joints]
    names = {"DATASET.DATASET": train, "DATASET.DATASET_TEST": test, "DATASET.SKELETON": skeleton}
    cfg_path = resolve_path(PUBLISHED[48 if channels >= 48 else 32])
    return (
        cfg_path,
        source,
        {**described, **names, "DATASET.NUM_JOINTS": joints, "MODEL.PRETRAINED": ""},
    )


def _sources(images: Any) -> tuple[bool, Iterable[Any]]:
    """Whether several images were asked for, and what to read, one after the other."""
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_ENDINGS)
            if not files:
                raise LoadError(f"{path}: the folder has no images ({', '.join(IMAGE_ENDINGS)})")
            return True, files
        if path.exists():
            return False, [path]
        found = sorted(glob(str(images)))
        if found:
            return True, found
        raise LoadError(f"{images}: no such file, folder or pattern with files")
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 3 or hasattr(images, "convert"):
        return False, [images]
    if isinstance(images, np.ndarray | Tensor) or not isinstance(images, Iterable):
        raise LoadError(
            f"an image is a path, an array (H, W, 3), a PIL image or a tensor (3, H, W), not "
            f"{type(images).__name__} {tuple(getattr(images, 'shape', ()))}".rstrip(" ()")
        )
    return True, images


def _read(item: Any, number: int) -> tuple[str, Image]:
    """An image's name and its pixels (H, W, 3) uint8 RGB."""
    if isinstance(item, str | os.PathLike):
        return str(item), read_image(Path(item), honour_exif=True)
    if hasattr(item, "convert"):  # a PIL image
        return getattr(item, "filename", "") or f"image {number}", np.asarray(item.convert("RGB"))
    if isinstance(item, Tensor):
        return f"image {number}", _from_tensor(item)
    return f"image {number}", item


def _from_tensor(image: Tensor) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[0] != 3:
        raise LoadError(f"a tensor must have shape (3, H, W), not {tuple(image.shape)}")
    if image.dtype.is_floating_point:
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).contiguous().cpu().numpy()


__all__ = ["ConfigError", "LoadError", "PoseModel", "Result", "load"]
