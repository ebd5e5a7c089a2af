"""Inference on a user's own images or video: people as COCO-style JSON, and drawn skeletons."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cv2

from swahr.config import configured_skeleton
from swahr.data.images import Image
from swahr.distributed import comm
from swahr.distributed.signals import Interrupted, StopRequest
from swahr.engine.image_sources import ImageFiles, InferenceError, Video
from swahr.engine.people_file import PeopleFile
from swahr.engine.progress import setup_logging
from swahr.engine.progress_bar import ProgressBar
from swahr.engine.provenance import Weights, describe_test, describe_weights, find_weights
from swahr.files import make_folder
from swahr.inference.load import load_model
from swahr.inference.pipeline import ImageResult, find_people, prefetch, thread_pool
from swahr.inference.predictor import Prediction, Predictor, build_predictor
from swahr.skeleton import Skeleton
from swahr.visualize import draw_people, save_image

logger = logging.getLogger(__name__)


class _Drawn(NamedTuple):
    """An image that was drawn, with its size (w, h) and people, or the reason why it was
    skipped.
    """

    name: str
    size: tuple[int, int]
    prediction: Prediction | None
    problem: str = ""


def call(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call a function in this process only."""
    function(*arguments)


def infer_images(
    cfg: Any,
    cfg_path: str | Path,
    files: ImageFiles,
    save_dir: str | Path,
    threshold: float,
    *,
    keep_all: bool = False,
    start: Callable[[Callable[..., None], tuple[Any, ...]], None] = call,
) -> dict[str, str]:
    """Write the people of image files to save_dir: people.json, and the images with skeletons.

    threshold: lowest score of the people that are drawn and written; keep_all writes all of them.
    start: calls a function with arguments in all processes that share the images, as `launch` does.
    Returns the names of the files that were
    skipped, with the reasons. An error or a signal loses nothing that was found: people.json then
    has the images that are done. Raises Interrupted after a signal, and InferenceError.
    """
    folder = _check_save_dir(save_dir, {path.parent for path in files.paths.values()})
    weights = describe_weights(find_weights(cfg, cfg_path))
    people = _people_file(cfg, weights, folder, threshold, keep_all)
    try:
        with people:
            start(infer_share, (cfg, weights, files, people, threshold))
    except Interrupted as stop:
        raise _interrupted(stop, people, f"{len(files.names)} images") from None
    return people.skipped


def infer_video(
    cfg: Any,
    cfg_path: str | Path,
    video: str | Path,
    save_dir: str | Path,
    threshold: float,
    *,
    keep_all: bool = False,
) -> None:
    """Write the people of every frame of a video to save_dir: people.json, and the video (.mp4)
    with skeletons. One process, frame after frame; parameters and errors as of infer_images.
    """
    device = comm.select_device(cfg.DEVICE)
    source = Video(video)
    folder = _check_save_dir(save_dir, {Path(video).parent})
    weights = describe_weights(find_weights(cfg, cfg_path))
    people = _people_file(cfg, weights, folder, threshold, keep_all)
    name = Path(video).name
    setup_logging()
    try:
        with (
            people,
            StopRequest() as stop,
            VideoWriter(folder / f"{Path(video).stem}.mp4", source.fps) as writer,
            ProgressBar(name, source.length, "frame") as bar,
        ):
            predictor = _load(cfg, weights, people.skeleton, device)
            groups = source.groups(predictor.batch_size)
            results = find_people(source, predictor, groups, workers=cfg.WORKERS)
            with closing(results):
                for index, prediction, _ in results:
                    assert prediction is not None, "a bad frame raises"
                    image = source.read(index)
                    source.forget(index)
                    writer.write(_draw(image, prediction, people.skeleton, threshold))
                    people.add(index, f"{name}#{index}", _size(image), prediction)
                    bar.update()
                    _raise_if_asked(stop)
            if not writer.frames:
                raise InferenceError(f"--video {video}: it has no frames that can be read")
    except Interrupted as stopped:
        frames = f"{source.length} frames" if source.length else "all frames"
        raise _interrupted(stopped, people, frames) from None


class VideoWriter:
    """A video file (.mp4). It is opened by its first frame, which gives the size, and closed at the
    end of the `with` block, so that it can be played after an error too.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.frames = 0
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: Image) -> None:
        """Append a frame (H, W, 3) uint8 RGB. Raises InferenceError if the file cannot be
        written.
        """
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.fps, _size(image))
            if not self._writer.isOpened():
                raise InferenceError(
                    f"{self.path}: the video cannot be written (OpenCV lacks the codec, or the "
                    "folder cannot be written to)"
                )
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()


def infer_share(
    cfg: Any, weights: Weights, files: ImageFiles, people: PeopleFile, threshold: float
) -> None:
    """What each process does: its share of the images, until a signal stops it."""
    device = comm.select_device(cfg.DEVICE)
    drawn_names = files.drawn_names()
    indices = {name: index for index, name in enumerate(files.names)}
    folder = people.path.parent

    def draw(result: ImageResult) -> _Drawn:
        name = result.image_id
        if result.prediction is None:
            return _Drawn(name, (0, 0), None, result.problem)
        image = files.read(name)
        drawn = _draw(image, result.prediction, people.skeleton, threshold)
        save_image(folder / drawn_names[name], drawn)
        return _Drawn(name, _size(image), result.prediction)

    with (
        comm.process_group(device, cfg.DIST_BACKEND, cfg.DIST_TIMEOUT),
        StopRequest() as stop,
        thread_pool(cfg.WORKERS) as pool,
    ):
        setup_logging()
        predictor = _load(cfg, weights, people.skeleton, device)
        share = files.names[comm.rank() :: comm.world_size()]
        step = predictor.batch_size
        groups = [share[start : start + step] for start in range(0, len(share), step)]
        found = find_people(files, predictor, groups, workers=cfg.WORKERS, skip_bad=True)
        results = prefetch(pool, draw, found, cfg.WORKERS)
        comm.barrier()  # the main process has removed what an earlier run left
        with ProgressBar("images", len(share), "image") as bar, closing(results):
            for name, size, prediction, problem in results:
                if prediction is None:
                    people.skip(indices[name], name, problem)
                else:
                    people.add(indices[name], name, size, prediction)
                bar.update()
                if stop.signal:
                    break
        comm.barrier()  # the others have written their last image
        _raise_if_asked(stop)


def _load(cfg: Any, weights: Weights, skeleton: Skeleton, device: Any) -> Predictor:
    logger.info("weights: %s; %s", weights, describe_test(cfg))
    return build_predictor(cfg, load_model(cfg, weights.path, device), skeleton, device)


def _people_file(
    cfg: Any, weights: Weights, folder: Path, threshold: float, keep_all: bool
) -> PeopleFile:
    info = {
        "description": "people found by SWAHR HigherHRNet",
        "weights": str(weights.path),
        "epoch": weights.epoch,
        "sha256": weights.digest,
        "test": describe_test(cfg),
        "threshold": None if keep_all else threshold,
    }
    return PeopleFile(
        folder,
        configured_skeleton(cfg),
        info,
        threshold=-math.inf if keep_all else threshold,
        joint_threshold=threshold / 2,
    )


def _check_save_dir(save_dir: str | Path, sources: set[Path]) -> Path:
    path = Path(save_dir)
    if path.resolve() in {source.resolve() for source in sources}:
        raise InferenceError(
            f"--save_dir {save_dir} is where the images are; they would be overwritten"
        )
    if path.exists() and not path.is_dir():
        raise InferenceError(f"--save_dir {save_dir} is not a folder")
    return make_folder(path)


def _draw(image: Image, people: Prediction, skeleton: Skeleton, threshold: float) -> Image:
    """The image with the people whose score is at least the threshold, and of these the joints
    whose score is above half of it.
    """
    shown = people.scores >= threshold
    return draw_people(
        image, people.keypoints[shown], skeleton, people.scores[shown], threshold=threshold / 2
    )


def _size(image: Image) -> tuple[int, int]:
    """(w, h)"""
    return image.shape[1], image.shape[0]


def _raise_if_asked(stop: StopRequest) -> None:
    if stop.signal:
        raise Interrupted(stop.signal)


def _interrupted(stop: Interrupted, people: PeopleFile, total: str) -> Interrupted:
    """The same, with the number of images that are done."""
    number = stop.exit_status - 128
    return Interrupted(number, f"; {people.count} of {total} are done, see {people.path}")
