"""A trained network in two lines: `model = swahr.load(...)`, `result = model("photo.jpg")`."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swahr.config import ConfigError, configured_skeleton
from swahr.config.places import COMMAND_LINE
from swahr.data.images import Image, ImageError, read_image
from swahr.distributed.comm import select_device
from swahr.engine.hub import fetch, send
from swahr.engine.image_sources import ImageFiles, InferenceError, is_video, why_no_image
from swahr.engine.model_files import LoadError, ModelFiles, find_model
from swahr.engine.published import publish
from swahr.exported import is_exported
from swahr.files import shorten
from swahr.inference.load import load_model
from swahr.inference.pipeline import prefetch, thread_pool
from swahr.inference.predictor import (
    ImageGeometry,
    Prediction,
    PredictionError,
    Predictor,
    build_predictor,
)
from swahr.results import Result, make_result
from swahr.skeleton import Skeleton

logger = logging.getLogger(__name__)

# Images that are read before the network runs, as a multiple of its batch: enough for images of one
# size to find each other.
READ_AHEAD = 4
READERS = 2  # threads that read files
PREFETCHED = 8  # images that they have read at most
# Bicubic resizing overshoots: a float tensor may leave 0 to 1 by so much, which is clipped.
OVERSHOOT = 0.2
# Settings -> the arguments of `load` for them.
ARGUMENTS = {
    "TEST.ENGINE": "engine",
    "TEST.FLIP_TEST": "flip",
    "TEST.SCALE_FACTOR": "scales",
    "DATASET.MAX_NUM_PEOPLE": "max_people",
}
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")


class _Named(NamedTuple):
    """An image with its name, and where it lies on the network's inputs."""

    name: str
    image: Image
    geometry: ImageGeometry


class PoseModel:
    """A network with its predictor: call it on images, get a `Result` for each.

    skeleton: the keypoints of the results. threshold: lowest score of the people of a result.
    source: where the weights are from, for people. files: the configuration and weights that
    save_pretrained writes; None for a model that cannot be saved. Threads may share a model: their
    images take turns in the network.
    """

    def __init__(
        self,
        predictor: Predictor,
        skeleton: Skeleton,
        *,
        threshold: float = 0.0,
        source: str = "",
        files: ModelFiles | None = None,
    ) -> None:
        self.predictor = predictor
        self.skeleton = skeleton
        self.threshold = threshold
        self.source = source
        self._files = files
        self._written_at = None if files is None else _time_of_writing(files)
        self._lock = Lock()

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> PoseModel:
        """The model of a folder of save_pretrained, or of an id on the Hugging Face hub.

        source: the folder, or an id such as "me/hands", which needs huggingface-hub. options:
        revision, token, cache_dir and local_files_only for the hub; others go to swahr.load.
        Raises LoadError.
        """
        of_hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        if not os.path.exists(os.path.expanduser(_path(source, "source"))):
            source = fetch(str(source), **of_hub)
        return load(source, **options)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model as a folder that from_pretrained and swahr.load read, with a model card.

        The weights are read again from their file. Returns the folder's path. Raises LoadError if
        the model was not made by swahr.load or is an exported network, its file has changed since,
        safetensors is missing, or the folder has files of other origin; WriteError if a file cannot
        be written.
        """
        out = _path(folder, "folder")
        files = self._files
        if files is None:
            raise LoadError("a model that was not made by swahr.load cannot be saved")
        if self._written_at != _time_of_writing(files):
            raise LoadError(f"{files.weights}: has changed since it was loaded; load it again")
        return publish(files, out)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload model",
    ) -> str:
        """Upload what save_pretrained writes to the Hugging Face hub. Returns its address.

        token: of the user; that of `hf auth login` if None. Raises LoadError.
        """
        with TemporaryDirectory() as folder:
            saved = self.save_pretrained(folder)
            return send(saved, repo_id, private=private, token=token, note=commit_message)

    def __repr__(self) -> str:
        flip = "flip test" if self.predictor.flips else "no flip test"
        scales = ", ".join(f"{scale:g}" for scale in self.predictor.scales)
        return (
            f"PoseModel({self.source!r}: {self.skeleton.num_keypoints} keypoints, input "
            f"{self.predictor.input_size} px, {flip}, scales {scales}, {self.predictor.device})"
        )

    def __call__(self, images: Any) -> Any:
        """The people of an image -> Result; of several -> a list of Results, in their order.

        images: a path, an array (H, W, 3) uint8 RGB, a PIL image (16 bits become 8, as in files), a
        tensor (3, H, W) in RGB, uint8 or float from 0 to 1, the contents of an image file (bytes,
        bytearray, memoryview) or a file open in binary mode, which is read from where it stands; or
        several: a list, a folder, a glob such as "photos/*.jpg", a generator, an array or tensor
        with one more dimension. Files are read as viewers show them (EXIF orientation). Of a folder
        or glob, files that are no images are skipped with a warning. Raises LoadError,
        InferenceError, ImageError or PredictionError, all ValueErrors, in one line.
        """
        several = _is_several(images)
        results = list(self.stream(images))
        return results if several else results[0]

    def stream(self, images: Any) -> Iterator[Result]:
        """As a call, but one Result after the other, for more images than fit in memory.

        Threads read the next images of a folder, glob or list while the network works; a generator
        is asked for an image when it is needed.
        """
        if isinstance(images, str | os.PathLike):
            if reason := _why_no_image(images):
                raise InferenceError(f"{images}: {reason}")
            files = ImageFiles([Path(images)])
            paths: Iterable[Any] = files.paths.values()
            return self._run(paths, PREFETCHED, skip_bad=_is_several(images))
        items = images if _is_several(images) else [images]
        return self._run(items, PREFETCHED if isinstance(items, Sequence) else 0, skip_bad=False)

    def _run(self, items: Iterable[Any], ahead: int, *, skip_bad: bool) -> Iterator[Result]:
        """ahead: images that are read while the network works."""
        size = self.predictor.batch_size
        together = size if size == 1 else READ_AHEAD * size
        group: list[_Named] = []
        with thread_pool(READERS) as pool:
            for read in prefetch(pool, self._try_to_read, enumerate(items), ahead):
                if isinstance(read, _Named):
                    group.append(read)
                elif skip_bad:
                    logger.warning("skipped: %s", read)
                else:
                    raise read
                if len(group) == together:
                    yield from self._predict(group)
                    group = []
        yield from self._predict(group)

    def _try_to_read(self, numbered: tuple[int, Any]) -> _Named | ImageError | PredictionError:
        try:
            return self._read(*numbered)
        except (ImageError, PredictionError) as error:
            return error

    def _read(self, number: int, item: Any) -> _Named:
        name = _name(item, number)
        image = _pixels(item, name)
        try:
            return _Named(name, image, self.predictor.geometries_of(image))
        except PredictionError as error:
            raise PredictionError(f"{name}: {error}") from None

    def _predict(self, group: Sequence[_Named]) -> list[Result]:
        images = [named.image for named in group]
        found: dict[int, Prediction] = {}
        with self._lock:
            for indices, batch in self.predictor.prepare(images, [n.geometry for n in group]):
                people = self.predictor.decode(batch, self.predictor.maps(batch))
                found.update(zip(indices, people))
        return [
            make_result(named.name, named.image, found[index], self.skeleton, self.threshold)
            for index, named in enumerate(group)
        ]


@contextmanager
def _in_words_of_python() -> Iterator[None]:
    """A ConfigError of the block names arguments of `load`, not the command line."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(map(_name_argument, error.problems)) from None


def _name_argument(problem: str) -> str:
    """A problem with the argument that it comes from in place of the command line."""
    if not problem.startswith(COMMAND_LINE):
        return problem
    rest = problem.removeprefix(COMMAND_LINE)
    key = rest.removeprefix(": ").partition(":")[0]
    return f"{ARGUMENTS.get(key, 'settings')}{rest}"


@_in_words_of_python()
def load(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "",
    engine: str = "",
    flip: bool | None = None,
    scales: Sequence[float] | NDArray[Any] | None = None,
    threshold: float = 0.0,
    max_people: int | None = None,
    batch_size: int | None = None,
    settings: Sequence[Any] = (),
) -> PoseModel:
    """A model that is ready to use.

    source: the folder of a run or of `swahr publish`, an experiment's YAML file, an exported
    network (.onnx), or a file of weights: one of training's, or a published one, whose width,
    keypoints and scale heads are told from its tensors (see model_files.published_settings).
    weights: for a YAML file or a folder; None for the file TEST.MODEL_FILE, or the run's own.
    device: "cpu", "cuda" or "cuda:1", or a torch.device; a GPU if there is one where it is "".
    engine: what runs an exported network, "onnxruntime" or "openvino"; TEST.ENGINE where it is "".
    flip, scales, max_people: of testing, in place of the configuration's.
    threshold: lowest score of the people of a result. 0 keeps everybody, which AP needs; 0.1, as of
    `swahr predict`, is better for drawings.
    batch_size: images in one pass of the network; None for the configuration's on a GPU, 1 on a
    CPU, which larger batches do not make faster.
    settings: further KEY VALUE pairs.
    Raises LoadError, ConfigError, CheckpointError, ExportedError or DeviceError, all ValueErrors.
    """
    path_of_weights = None if weights is None else _path(weights, "weights")
    if batch_size is not None:
        _check_batch_size(batch_size)
    if not _is_number(threshold) or math.isnan(threshold):
        raise LoadError(f"threshold is {shorten(threshold)}; it must be a number")
    chosen = {
        "TEST.ENGINE": engine or None,
        "TEST.FLIP_TEST": flip,
        "TEST.SCALE_FACTOR": None if scales is None else _numbers(scales),
        "DATASET.MAX_NUM_PEOPLE": max_people,
    }
    pairs = [part for key, value in chosen.items() if value is not None for part in (key, value)]
    words = [*map(str, pairs), *_words(settings)]
    files = find_model(_path(source, "source"), path_of_weights, words)
    cfg, path, _ = files
    if engine and not is_exported(path):
        raise LoadError(
            f"{path}: has no engine but PyTorch; engine={engine!r} runs exported networks (.onnx, "
            "see `swahr export`)"
        )
    skeleton = configured_skeleton(cfg)
    where = select_device(_device_name(device))
    predictor = build_predictor(cfg, load_model(cfg, path, where), skeleton, where)
    if batch_size is not None:
        predictor.batch_size = int(batch_size)
    return PoseModel(predictor, skeleton, threshold=threshold, source=str(path), files=files)


def _path(given: Any, name: str) -> Path:
    """The path of an argument. Raises LoadError where it is none, or empty: the current folder is
    never meant.
    """
    if not isinstance(given, str | os.PathLike) or not str(given):
        raise LoadError(f"{name} is {shorten(given)}; it must be a path")
    return Path(given)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_batch_size(size: Any) -> None:
    """Raises LoadError for what is no whole number, or below 1."""
    if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
        raise LoadError(f"batch_size is {shorten(size)}; it must be a whole number of 1 or more")


def _numbers(scales: Any) -> list[float]:
    """The numbers of a list, an array or a tensor. Raises LoadError where it is none of these."""
    values = scales.tolist() if isinstance(scales, np.ndarray | Tensor) else scales
    if not isinstance(values, Sequence) or not all(map(_is_number, values)):
        raise LoadError(f"scales is {shorten(scales)}; it must be a list of numbers")
    return [float(value) for value in values]


def _words(settings: Any) -> list[str]:
    """Raises LoadError where the settings are no list."""
    if not isinstance(settings, Sequence) or isinstance(settings, str | bytes):
        raise LoadError(
            f"settings is {shorten(settings)}; it must be a list of keys and values, such as "
            '["TEST.FLIP_TEST", True]'
        )
    return [str(word) for word in settings]


def _device_name(device: Any) -> str:
    """The name that select_device takes. Raises LoadError where it is neither text nor a device."""
    if device is None:
        return ""
    if not isinstance(device, str | torch.device):
        raise LoadError(
            f'device is {shorten(device)}; it must be text such as "cpu" or "cuda:1", or a '
            "torch.device"
        )
    return str(device)


def _time_of_writing(files: ModelFiles) -> int | None:
    """Of the file of weights, in nanoseconds; None if it is gone."""
    return files.weights.stat().st_mtime_ns if files.weights.exists() else None


def _is_several(images: Any) -> bool:
    """Whether these are several images. Raises LoadError for what is no image at all,
    InferenceError for an empty path: the current folder is never meant.
    """
    if isinstance(images, str | os.PathLike):
        if not str(images):
            raise InferenceError("images is an empty path; name a file, a folder or a glob")
        return not os.path.isfile(os.path.expanduser(images))
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim not in (3, 4):
            raise LoadError(
                f"an image is an array (height, width, 3) or a tensor (3, height, width), not of "
                f"shape {tuple(images.shape)}"
            )
        return images.ndim == 4
    if _is_pil(images) or _is_file(images):
        return False
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise LoadError(
            "an image is a path, an array (height, width, 3), a PIL image, a tensor (3, height, "
            f"width), the contents of a file or an open file, not {type(images).__name__}"
        )
    return True


def _why_no_image(path: str | os.PathLike[str]) -> str:
    """What to do with an address, a video, an archive or a pipe, which are no images; '' for other
    paths.
    """
    if "://" in str(path):
        return (
            "addresses are not fetched; give a file, or the image as an array or a PIL image; "
            "`swahr predict` reads the video at an address"
        )
    if is_video(str(path)):
        return (
            "is a video or a camera; `swahr predict` reads it, and examples/video.py gives a model "
            "its frames"
        )
    return why_no_image(path)


def _is_pil(item: Any) -> bool:
    """PIL need not be installed."""
    return type(item).__module__.partition(".")[0] == "PIL"


def _is_file(item: Any) -> bool:
    """Whether it is the contents of a file, or an open file of any kind, such as BytesIO."""
    return isinstance(item, bytes | bytearray | memoryview) or hasattr(item, "readline")


def _name(item: Any, number: int) -> str:
    """The path of an image, or of the file that it is from; else its number."""
    given = item
    if not isinstance(item, str | os.PathLike):
        given = getattr(item, "filename", "") or (_is_file(item) and getattr(item, "name", ""))
    named = isinstance(given, str | os.PathLike)  # files without a path are named by a number
    return (str(given) if named else "") or f"image {number}"


def _pixels(item: Any, name: str) -> Image:
    """(H, W, 3) uint8 RGB; arrays as they are."""
    if isinstance(item, str | os.PathLike):
        if not str(item):
            raise ImageError(f"{name}: its path is empty")
        if reason := _why_no_image(item):
            raise ImageError(f"{name}: {reason}")
        return read_image(Path(os.path.expanduser(item)), honour_exif=True)
    if isinstance(item, Tensor):
        return _from_tensor(item, name)
    if _is_pil(item):
        return _from_pil(item, name)
    if _is_file(item):
        return read_image(_contents(item, name), name, honour_exif=True)
    return item


def _contents(item: Any, name: str) -> bytes:
    """Of a file, which is read where it is open. Raises ImageError."""
    if isinstance(item, memoryview) and item.ndim != 1:
        raise ImageError(
            f"{name}: a memoryview must be of a file's bytes; give numpy.asarray of one of pixels"
        )
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    try:
        data = item.read()
    except UnicodeDecodeError:
        data = ""
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise ImageError(f"{name}: cannot be read ({error})") from None
    if isinstance(data, str):
        raise ImageError(f'{name}: is open as text; open it in binary mode, "rb"')
    if not data:
        raise ImageError(f"{name}: nothing is left to read; seek(0) goes back to its start")
    return bytes(data)


def _from_pil(item: Any, name: str) -> NDArray[np.uint8]:
    """Upright (H, W, 3) RGB; 16 bits become 8 as read_image does it. Raises ImageError."""
    from PIL import ImageOps

    if item.mode in ("I", "F"):
        raise ImageError(
            f"{name}: a PIL image of mode {item.mode} has no fixed range; use L, RGB or I;16"
        )
    try:
        upright = ImageOps.exif_transpose(item)
        if not upright.mode.startswith("I;16"):
            return np.asarray(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # cut off, damaged, closed
        raise ImageError(f"{name}: cannot be decoded ({error})") from None
    grey = (np.asarray(upright) >> 8).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1)


def _from_tensor(image: Tensor, name: str) -> NDArray[np.uint8]:
    if image.ndim != 3 or len(image) != 3:
        raise LoadError(f"{name}: a tensor must have shape (3, H, W), not {tuple(image.shape)}")
    if not image.numel():
        raise LoadError(
            f"{name}: an image must have pixels; this tensor is empty, of shape "
            f"{tuple(image.shape)}"
        )
    if image.dtype.is_floating_point:
        _check_range(image, name)
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).contiguous().cpu().numpy()


def _check_range(image: Tensor, name: str) -> None:
    """Raises ImageError for a float tensor that does not go from 0 to 1, or has NaN."""
    low, high = (float(value) for value in image.detach().aminmax())
    if math.isnan(low) or low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ImageError(
            f"{name}: a float tensor goes from 0 to 1, this one from {low:g} to {high:g}"
        )


__all__ = ["LoadError", "PoseModel", "Result", "load"]
