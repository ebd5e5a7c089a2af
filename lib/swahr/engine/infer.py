"""Inference on a user's own images or video: people as files, and drawn skeletons."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from swahr.config import configured_skeleton
from swahr.data.images import Image, ImageError
from swahr.distributed import comm
from swahr.distributed.signals import Interrupted, StopRequest
from swahr.engine.explain import explain
from swahr.engine.image_sources import ImageFiles, InferenceError
from swahr.engine.people_file import Moment, PeopleFile, Summary
from swahr.engine.people_lines import CsvTable, JsonLines, LineFile
from swahr.engine.progress import setup_logging
from swahr.engine.provenance import Weights, describe_test, describe_weights
from swahr.engine.video import Video, VideoWriter
from swahr.engine.window import Window
from swahr.files import make_folder
from swahr.inference.load import load_model
from swahr.inference.pipeline import ImageResult, find_people, prefetch, thread_pool
from swahr.inference.predictor import Prediction, PredictionError, Predictor, build_predictor
from swahr.inference.smoothing import OneEuroFilter
from swahr.inference.tracking import Tracker
from swahr.progress_bar import ProgressBar
from swahr.skeleton import Skeleton
from swahr.visualize import draw_people, save_image

logger = logging.getLogger(__name__)

OUTPUTS = ("images", "video", "json", "jsonl", "csv")
FRAME_NAME = "{:06d}.jpg"  # of a frame that is saved as an image
MAPS_ENDING = "_maps.png"


@dataclass(frozen=True)
class Results:
    """What becomes of the people that are found.

    folder: of the results. outputs: of OUTPUTS, those that are written. threshold: lowest score of
    the people that are drawn and written; keep_all writes all of them. show: also show the drawn
    images in a window. maps: also write what the network sees in each image, see explain.
    """

    folder: Path
    outputs: frozenset[str]
    threshold: float = 0.1
    keep_all: bool = False
    show: bool = False
    maps: bool = False


class _Drawn(NamedTuple):
    """An image that is done, with its size (w, h) and people, or the reason why it was skipped.

    image: as it was drawn; None where nobody asked for it.
    """

    name: str
    size: tuple[int, int]
    prediction: Prediction | None
    problem: str = ""
    image: Image | None = None


def call(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call a function in this process only."""
    function(*arguments)


def infer_images(
    cfg: Any,
    weights_path: str | Path,
    files: ImageFiles,
    results: Results,
    *,
    start: Callable[[Callable[..., None], tuple[Any, ...]], None] = call,
) -> Summary:
    """Write the people of image files, and the images with skeletons.

    start: calls a function with arguments in all processes that share the images, as `launch` does.
    An error or a signal loses nothing that was found: the files then have the images that are done.
    Raises Interrupted after a signal, and InferenceError.
    """
    if "video" in results.outputs:
        raise InferenceError("--save video: the source is images; save images, json, jsonl or csv")
    _check_folder(results.folder, {path.parent for path in files.paths.values()})
    _check_targets(files, results)
    weights = describe_weights(weights_path)
    people = _people_file(cfg, weights, results)
    try:
        with people:
            start(infer_share, (cfg, weights, files, people, results))
    except Interrupted as stop:
        raise _interrupted(stop, people, f"{len(files.names)} images") from None
    return people.summary


def infer_video(
    cfg: Any,
    weights_path: str | Path,
    source: Video,
    results: Results,
    *,
    track: bool = False,
    smooth: bool = False,
) -> Summary:
    """Write the people of every frame of a video, and the video (.mp4) with skeletons.

    One process, frame after frame. track: give people ids, see Tracker. smooth: and smooth their
    joints, see OneEuroFilter. Errors as of infer_images.
    """
    if results.maps:
        raise InferenceError("--show-maps: the source is a video; give images")
    device = comm.select_device(cfg.DEVICE)
    sources = {Path(source.source).parent} if source.is_file else set()
    folder = _check_folder(results.folder, sources)
    stem = Path(source.name).stem
    target = folder / f"{stem}.mp4"
    writes_video = "video" in results.outputs
    if writes_video:
        _check_video_target(target, source)
    weights = describe_weights(weights_path)
    people = _people_file(cfg, weights, results)
    setup_logging()
    try:
        with (
            people,
            StopRequest() as stop,
            VideoWriter(target, source) if writes_video else nullcontext() as film,
            _window(results, source.name) as window,
            ProgressBar(source.name, source.length, "frame") as bar,
        ):
            predictor = _load(cfg, weights, people.skeleton, device)
            follow = _Follower(people.skeleton, results.threshold, track=track, smooth=smooth)
            for index, prediction in _frames(source, predictor, cfg.WORKERS):
                image = source.read(index)
                moment = Moment(index, source.time(index))
                source.forget(index)
                prediction, ids = follow(prediction, moment.time)
                if film or window or "images" in results.outputs:
                    drawn = _draw(image, prediction, people.skeleton, results.threshold, ids)
                    if film:
                        film.write(drawn, moment.time)
                    if "images" in results.outputs:
                        save_image(folder / stem / FRAME_NAME.format(index), drawn)
                    if window:
                        window.show(drawn)
                name = f"{source.name}#{index}"
                people.add(index, name, _size(image), prediction, moment, ids)
                bar.update()
                _raise_if_asked(stop)
                if window and not window.open:
                    break
            if not bar.count:
                raise InferenceError(f"{source.source}: it has no frames that can be read")
    except Interrupted as stopped:
        frames = f"{source.length} frames" if source.length else "all frames"
        raise _interrupted(stopped, people, frames) from None
    return people.summary


def _frames(source: Video, predictor: Predictor, workers: int) -> Generator[tuple[int, Prediction]]:
    """The frames of a video, by index, with their people."""
    found = find_people(
        source,
        predictor,
        source.groups(predictor.batch_size),
        workers=1 if source.live else workers,
        look_ahead=not source.live,
    )
    with closing(found):
        for index, prediction, _ in found:
            assert prediction is not None, "a bad frame raises"
            yield index, prediction


class _Follower:
    """Gives the people of a video's frames ids and smooth joints, where this is asked for.

    threshold: lowest score of a person who gets a new id.
    """

    def __init__(self, skeleton: Skeleton, threshold: float, *, track: bool, smooth: bool) -> None:
        wanted = track or smooth
        self._tracker = Tracker(skeleton.sigmas, min_score=threshold) if wanted else None
        self._filter = OneEuroFilter() if smooth else None

    def __call__(self, prediction: Prediction, time: float) -> tuple[Prediction, list[int] | None]:
        """The people of the next frame, and their ids; None where people are not followed."""
        if self._tracker is None:
            return prediction, None
        ids = self._tracker(prediction.keypoints, prediction.scores, time).tolist()
        if self._filter is None:
            return prediction, ids
        smooth = self._filter(ids, prediction.keypoints, time)
        return prediction._replace(keypoints=smooth), ids


def infer_share(
    cfg: Any, weights: Weights, files: ImageFiles, people: PeopleFile, results: Results
) -> None:
    """What each process does: its share of the images, until a signal stops it."""
    device = comm.select_device(cfg.DEVICE)
    indices = {name: index for index, name in enumerate(files.names)}
    finish = _Finisher(files, people.skeleton, results)
    with (
        comm.process_group(device, cfg.DIST_BACKEND, cfg.DIST_TIMEOUT),
        StopRequest() as stop,
        thread_pool(cfg.WORKERS) as pool,
        _window(results, files.title) as window,
    ):
        setup_logging()
        predictor = _load(cfg, weights, people.skeleton, device)
        share = files.names[comm.rank() :: comm.world_size()]
        found = (
            _explained(files, predictor, people.skeleton, share, results)
            if results.maps
            else _found(files, predictor, share, cfg.WORKERS)
        )
        done = prefetch(pool, finish, found, cfg.WORKERS)
        comm.barrier()  # the main process has removed what an earlier run left
        with ProgressBar("images", len(share), "image") as bar, closing(done):
            for name, size, prediction, problem, drawn in done:
                if prediction is None:
                    people.skip(indices[name], name, problem)
                else:
                    people.add(indices[name], name, size, prediction)
                bar.update()
                if window and drawn is not None:
                    window.show(drawn, wait=True)
                if stop.signal or (window and not window.open):
                    break
        comm.barrier()  # the others have written their last image
        _raise_if_asked(stop)


class _Finisher:
    """Draws an image whose people are found, and writes it."""

    def __init__(self, files: ImageFiles, skeleton: Skeleton, results: Results) -> None:
        self._files = files
        self._skeleton = skeleton
        self._results = results
        self._names = files.drawn_names()

    def __call__(self, result: ImageResult) -> _Drawn:
        name = result.image_id
        results = self._results
        if result.prediction is None:
            return _Drawn(name, (0, 0), None, result.problem)
        image = self._files.read(name)
        drawn = None
        if results.show or "images" in results.outputs:
            drawn = _draw(image, result.prediction, self._skeleton, results.threshold)
        if drawn is not None and "images" in results.outputs:
            save_image(results.folder / self._names[name], drawn)
        return _Drawn(name, _size(image), result.prediction, "", drawn if results.show else None)


def _found(
    files: ImageFiles, predictor: Predictor, names: Sequence[str], workers: int
) -> Generator[ImageResult]:
    step = predictor.batch_size
    groups = [names[start : start + step] for start in range(0, len(names), step)]
    return find_people(files, predictor, groups, workers=workers, skip_bad=True)


def _explained(
    files: ImageFiles,
    predictor: Predictor,
    skeleton: Skeleton,
    names: Sequence[str],
    results: Results,
) -> Iterator[ImageResult]:
    """The results of images, one by one, after what the network sees in each is written."""
    drawn_names = files.drawn_names()
    for name in names:
        try:
            explanation = explain(predictor, files.read(name), skeleton, results.threshold)
        except (ImageError, PredictionError) as error:
            yield ImageResult(name, None, str(error))
            continue
        save_image(results.folder / _maps_name(drawn_names[name]), explanation.panel)
        yield ImageResult(name, explanation.prediction)


def _load(cfg: Any, weights: Weights, skeleton: Skeleton, device: Any) -> Predictor:
    logger.info("weights: %s; %s", weights, describe_test(cfg))
    return build_predictor(cfg, load_model(cfg, weights.path, device), skeleton, device)


def _people_file(cfg: Any, weights: Weights, results: Results) -> PeopleFile:
    threshold = results.threshold
    skeleton = configured_skeleton(cfg)
    info = {
        "description": "people found by SWAHR HigherHRNet",
        "weights": str(weights.path),
        "epoch": weights.epoch,
        "sha256": weights.digest,
        "test": describe_test(cfg),
        "threshold": None if results.keep_all else threshold,
    }
    lines: dict[str, LineFile] = {
        "jsonl": JsonLines(results.folder),
        "csv": CsvTable(results.folder, skeleton.keypoints),
    }
    return PeopleFile(
        results.folder,
        skeleton,
        info,
        threshold=-math.inf if results.keep_all else threshold,
        joint_threshold=threshold / 2,
        lines=[file for name, file in lines.items() if name in results.outputs],
        write_json="json" in results.outputs,
    )


def _check_folder(folder: Path, sources: set[Path]) -> Path:
    if os.path.realpath(folder) in map(os.path.realpath, sources):
        raise InferenceError(
            f"--save_dir {folder} is where the images are; they would be overwritten"
        )
    if folder.exists() and not folder.is_dir():
        raise InferenceError(f"--save_dir {folder} is not a folder")
    return make_folder(folder)


def _check_targets(files: ImageFiles, results: Results) -> None:
    """Raises InferenceError where an image that is drawn would replace one that is read, or maps an
    image that is drawn.
    """
    names = {target: name for name, target in files.drawn_names().items()}
    drawn = names if "images" in results.outputs else {}
    maps = {_maps_name(target): name for target, name in names.items()} if results.maps else {}
    sources = {os.path.realpath(path): path for path in files.paths.values()}
    for target in (*drawn, *maps):
        if source := sources.get(os.path.realpath(results.folder / target)):
            raise InferenceError(
                f"--save_dir {results.folder}: {source} would be overwritten; give a folder "
                "outside those of the images"
            )
    for target, name in maps.items():
        if target in drawn:
            raise InferenceError(
                f"--show-maps: the maps of {name} would replace the drawing of {drawn[target]}; "
                "leave that image out"
            )


def _check_video_target(target: Path, source: Video) -> None:
    """Raises InferenceError where the video that is drawn would replace the one that is read, for
    instance through a link.
    """
    if source.is_file and target.exists() and target.samefile(source.source):
        raise InferenceError(
            f"--save_dir {target.parent}: {source.source} would be overwritten, as {target} is the "
            "same file; give another folder"
        )


def _maps_name(drawn_name: str) -> str:
    """The file with the maps of an image, by the name under which the image is drawn."""
    return f"{drawn_name}{MAPS_ENDING}"


def _window(results: Results, title: str) -> Any:
    """A window where one is wanted, else a context without one."""
    return Window(title) if results.show else nullcontext()


def _draw(
    image: Image,
    people: Prediction,
    skeleton: Skeleton,
    threshold: float,
    ids: list[int] | None = None,
) -> Image:
    """The image with the people whose score is at least the threshold. Of these, joints whose score
    is at most half of it are left out, and those up to all of it are drawn as unsure ones.
    """
    shown = people.scores >= threshold
    return draw_people(
        image,
        people.keypoints[shown],
        skeleton,
        people.scores[shown],
        threshold=threshold / 2,
        unsure=threshold,
        ids=None if ids is None else [i for i, sees in zip(ids, shown) if sees],
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
    written = [people.path] if people.write_json else [file.path for file in people.lines]
    where = f", see {written[0]}" if written else ""
    return Interrupted(number, f"; {people.summary.images} of {total} are done{where}")
