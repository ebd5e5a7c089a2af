"""Validation: the people of a whole data set, found by as many processes as there are, and their
average precision.

Images are read and warped by threads ahead of the network, and people are decoded by one behind it.
Images of one
input size go through together; results are in the order of the data set, however the images were
shared out.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from swahr.config import configured_skeleton, output_dir, resolve_path
from swahr.data.images import Image, ImageError
from swahr.data.keypoints import KeypointDataset, build_dataset, dataset_spec
from swahr.distributed import comm
from swahr.engine import checkpoint
from swahr.engine.progress import setup_logging
from swahr.evaluation.metrics import evaluate, format_table
from swahr.evaluation.results import PartFiles, Record, to_records, write_results
from swahr.files import write_text
from swahr.inference.predictor import (
    Prediction,
    PredictionError,
    Predictor,
    PreparedBatch,
    build_predictor,
)
from swahr.models.build import build_model
from swahr.models.network import PoseNetwork
from swahr.models.weights import load_weights

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

CHECKPOINTS = (checkpoint.BEST, checkpoint.FINAL)  # of a run, the better first
# What decides which people are found, the weights aside; other settings only decide how fast.
RESULT_SECTIONS = ("DATASET", "MODEL", "LOSS", "AMP", "TEST")
SPEED_KEYS = ("MODEL_FILE", "IMAGES_PER_GPU", "LOG_PROGRESS", "CUDA_GRAPHS", "RESUME")


class ValidationError(ValueError):
    """A validation that cannot start; the message says what is missing."""


class ImageSource(Protocol):
    """Where images come from: read(id) -> (H, W, 3) uint8 RGB, or ImageError. Ids are numbers, or
    names.
    """

    def read(self, image_id: Any, /) -> Image: ...


class ImageResult(NamedTuple):
    """What came of an image: its people, or None and the reason why it was left out."""

    image_id: Any
    prediction: Prediction | None
    problem: str = ""


class _Group(NamedTuple):
    """Images on their way: prepared batches with the images' ids, the maps of each batch, and what
    was left out.
    """

    batches: list[tuple[list[Any], PreparedBatch]]
    left_out: list[ImageResult]
    maps: list[tuple[Tensor, Tensor]]


def find_people(
    source: ImageSource,
    predictor: Predictor,
    groups: Iterable[Sequence[Any]],
    *,
    workers: int = 4,
    skip_bad: bool = False,
) -> Iterator[ImageResult]:
    """Look for people in groups of images, given by their ids; what came of each image, group by
    group.

    workers: threads that read and warp images. skip_bad: images that cannot be read, or are too
    long and thin, are reported with the rest, rather than raised as ImageError or PredictionError.
    """

    def prepare(ids: Sequence[Any]) -> _Group:
        images = {}
        left_out = []
        for image_id in ids:
            try:
                images[image_id] = _read(source, predictor, image_id)
            except (ImageError, PredictionError) as error:
                if not skip_bad:
                    raise
                left_out.append(ImageResult(image_id, None, str(error)))
        good = list(images)
        batches = predictor.prepare(list(images.values()))
        return _Group(
            [([good[i] for i in numbers], batch) for numbers, batch in batches], left_out, []
        )

    def run(group: _Group) -> _Group:
        return group._replace(maps=[predictor.maps(batch) for _, batch in group.batches])

    def decode(group: _Group) -> list[ImageResult]:
        found = [
            ImageResult(image_id, people)
            for (ids, batch), maps in zip(group.batches, group.maps)
            for image_id, people in zip(ids, predictor.decode(batch, *maps))
        ]
        return found + group.left_out

    with ThreadPoolExecutor(max(workers, 1)) as readers, ThreadPoolExecutor(1) as decoder:
        prepared = prefetch(readers, prepare, groups, workers + 1)
        for found in prefetch(decoder, decode, map(run, prepared), 1):
            yield from found


def _read(source: ImageSource, predictor: Predictor, image_id: Any) -> Image:
    image = source.read(image_id)
    try:
        predictor.input_size_of(image)
    except PredictionError as error:
        raise PredictionError(f"image {image_id}: {error}") from None
    return image


def prefetch(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[Result]:
    """function(item) for each item in turn; the pool works on up to `depth` more while the caller
    is busy with one.
    """
    futures: deque[Future[Result]] = deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > depth:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def predict(
    dataset: KeypointDataset,
    predictor: Predictor,
    image_ids: Iterable[int] | None = None,
    *,
    workers: int = 4,
    skip_bad: bool = False,
    parts: PartFiles | None = None,
    resume: bool = False,
    progress: str = "",
) -> list[Record]:
    """The result records of the images (default: all), in their order; each process does a part,
    and all return all.

    parts: where records are written as they are produced; with resume, images that are there
    already are not done again. skip_bad: see find_people; such images have no people, and are named
    in the log. progress: title of a bar.
    """
    wanted = list(dataset.image_ids if image_ids is None else image_ids)
    done = _records_so_far(parts, resume)
    groups = _own_groups(
        dataset, predictor, [image_id for image_id in wanted if image_id not in done]
    )
    new: dict[int, list[Record]] = {}
    bar = tqdm(
        total=sum(map(len, groups)),
        desc=progress,
        unit="image",
        dynamic_ncols=True,
        disable=not (progress and comm.is_main()),
    )
    with bar:
        for image_id, people, problem in find_people(
            dataset, predictor, groups, workers=workers, skip_bad=skip_bad
        ):
            if people is None:
                logger.warning("left out: %s", problem)
            new[image_id] = (
                [] if people is None else to_records(image_id, people, dataset.category_id)
            )
            if parts:
                parts.append(comm.rank(), image_id, new[image_id])
            bar.update()
    for part in comm.all_gather(new):
        done.update(part)
    return [record for image_id in wanted for record in done[image_id]]


def _own_groups(
    dataset: KeypointDataset, predictor: Predictor, image_ids: Sequence[int]
) -> list[list[int]]:
    """This process's share of the images, in groups of at most a batch that have one input size."""

    def size(image_id: int) -> tuple[int, int]:
        info = dataset.image_info(image_id)
        return predictor.place(info.width, info.height, predictor.scales[0]).size

    mine = sorted(image_ids, key=size)[comm.rank() :: comm.world_size()]
    same_size = (list(part) for _, part in groupby(mine, size))
    return [
        part[start : start + predictor.batch_size]
        for part in same_size
        for start in range(0, len(part), predictor.batch_size)
    ]


def _records_so_far(parts: PartFiles | None, resume: bool) -> dict[int, list[Record]]:
    """What an earlier run left, read by the main process for all: they need not share a disk. The
    rest is removed.
    """
    done: dict[int, list[Record]] = {}
    if parts and comm.is_main():
        done = parts.read() if resume else {}
        parts.clear(keep=done)
        if done:
            logger.info("going on after %d images of an earlier run", len(done))
    return comm.all_gather(done)[0]


def run_validation(cfg: Any, cfg_path: str | Path) -> dict[str, float]:
    """What each process of tools/dist_valid.py does: `validate` with the weights of
    `find_weights`.
    """
    device = comm.select_device(cfg.DEVICE)
    with comm.process_group(device, cfg.DIST_BACKEND):
        setup_logging()
        return validate(cfg, folder=output_dir(cfg, cfg_path), weights=find_weights(cfg, cfg_path))


def validate(
    cfg: Any,
    model: PoseNetwork | None = None,
    *,
    folder: str | Path,
    weights: str | Path = "",
    dataset: KeypointDataset | None = None,
) -> dict[str, float]:
    """Find the people of DATASET.TEST and score them; called by all processes alike, with the same
    figures for all.

    model: the network, without wrappers and on its device, as training has it; None: built, with
    the weights of the file. folder: of the run; its results/ gets keypoints_<TEST>_results.json,
    ready to be uploaded, and the table. dataset: that of DATASET.TEST, where it is at hand. Returns
    {} for a set without annotations, such as test-dev.
    """
    dataset = dataset or build_dataset(
        cfg,
        cfg.DATASET.TEST,
        train=False,
        root=resolve_path(cfg.DATASET.ROOT),
        skeleton=configured_skeleton(cfg),
    )
    results = Path(folder) / "results" / f"keypoints_{cfg.DATASET.TEST}_results.json"
    parts = None
    if model is None:
        model = load_network(cfg, weights)
        parts = PartFiles(results.parent, fingerprint(cfg, weights))
    was_training = model.training
    device = next(model.parameters()).device
    try:
        records = predict(
            dataset,
            build_predictor(cfg, model, dataset.skeleton, device),
            workers=cfg.WORKERS,
            skip_bad=cfg.DATASET.ON_BAD_SAMPLE == "skip",
            parts=parts,
            resume=cfg.TEST.RESUME,
            progress=cfg.DATASET.TEST if cfg.TEST.LOG_PROGRESS else "",
        )
    finally:
        model.train(was_training)
    stats: dict[str, float] = {}
    if comm.is_main():
        write_results(results, records)
        logger.info("%d people in %d images: %s", len(records), len(dataset), results)
        if dataset.has_annotations:
            stats = evaluate(
                dataset.coco, records, dataset.skeleton, dataset_spec(cfg, train=False).protocol
            )
            write_text(results.with_suffix(".md"), format_table(cfg.MODEL.NAME, stats) + "\n")
        if parts:
            parts.clear()
    return comm.all_gather(stats)[0]


def load_network(cfg: Any, weights: str | Path) -> PoseNetwork:
    """The configured network with the weights of a file, on this process's device."""
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC
    model = build_model(cfg)
    load_weights(model, weights)
    return model.to(comm.select_device(cfg.DEVICE))


def find_weights(cfg: Any, cfg_path: str | Path) -> Path:
    """TEST.MODEL_FILE, else the best or the last weights of the configuration's own run;
    ValidationError if none.
    """
    if cfg.TEST.MODEL_FILE:
        return resolve_path(cfg.TEST.MODEL_FILE)
    run = output_dir(cfg, cfg_path)
    for name in CHECKPOINTS:
        if (run / name).is_file():
            return run / name
    raise ValidationError(
        f"no weights to test with: TEST.MODEL_FILE is empty, and {run} has neither "
        f"{' nor '.join(CHECKPOINTS)}"
    )


def fingerprint(cfg: Any, weights: str | Path) -> str:
    """Hexadecimal digits that runs share if they look for the same people with the same weights."""
    digest = hashlib.sha256()
    for section in RESULT_SECTIONS:
        digest.update(
            repr([item for item in cfg[section].items() if item[0] not in SPEED_KEYS]).encode()
        )
    with open(weights, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
