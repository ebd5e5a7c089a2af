"""Validation: the people of a whole data set, found by as many processes as there are, and their average precision.

Pictures are read and warped by threads ahead of the network, and people are decoded by one behind it. Pictures of one input size go
through together; results are in the order of the data set, however the pictures were shared out.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import nn
from tqdm import tqdm

from swahr import geometry
from swahr.config import output_dir, resolve_path
from swahr.data.images import Image, ImageError
from swahr.data.keypoints import KeypointDataset, build_dataset, dataset_spec
from swahr.engine import distributed
from swahr.evaluation.metrics import evaluate, format_table
from swahr.evaluation.results import PartFiles, Record, to_records, write_results, write_text
from swahr.inference.predictor import Prediction, PredictionError, Predictor, build_predictor
from swahr.models.build import build_model
from swahr.models.weights import load_weights

logger = logging.getLogger(__name__)

Item, Result = TypeVar("Item"), TypeVar("Result")
CHECKPOINTS = ("model_best.pth.tar", "final_state.pth.tar")  # of a run, the better first
# What decides which people are found, the weights aside; other settings only decide how fast.
DECIDING = ("DATASET", "MODEL", "LOSS", "AMP", "TEST")
NOT_DECIDING = ("MODEL_FILE", "IMAGES_PER_GPU", "LOG_PROGRESS", "RESUME")


class ValidationError(ValueError):
    """A validation that cannot start; the message says what is missing."""


class Pictures(Protocol):
    """What people are looked for in. read: (H, W, 3) uint8 RGB, or ImageError."""

    def read(self, image_id: int) -> Image: ...


class Found(NamedTuple):
    """What came of a picture: its people, or None and the reason why it was left out."""

    image_id: int
    prediction: Prediction | None
    problem: str = ""


def find_people(pictures: Pictures, predictor: Predictor, image_ids: Iterable[Sequence[int]], *, workers: int = 4,
                skip_bad: bool = False) -> Iterator[Found]:
    """Look for people in groups of pictures; what came of each picture, group by group.

    workers: threads that read and warp. skip_bad: report pictures that cannot be read, rather than raise ImageError or
    PredictionError.
    """
    def read(group: Sequence[int]) -> tuple[list[int], list[Image], list[Found]]:
        good, images, bad = [], [], []
        for image_id in group:
            try:
                image = pictures.read(image_id)
                predictor.input_size_of(image)
            except (ImageError, PredictionError) as error:
                if not skip_bad:
                    raise
                bad.append(Found(image_id, None, str(error)))
            else:
                good.append(image_id)
                images.append(image)
        return good, images, bad

    def prepare(group: Sequence[int]) -> tuple[list[Any], list[Found]]:
        ids, images, bad = read(group)
        return [([ids[i] for i in chosen], batch) for chosen, batch in predictor.prepare(images)], bad

    def run(group: tuple[list[Any], list[Found]]) -> tuple[list[Any], list[Found]]:
        batches, bad = group
        return [(ids, batch, predictor.maps(batch)) for ids, batch in batches], bad

    def decode(group: tuple[list[Any], list[Found]]) -> list[Found]:
        batches, bad = group
        return [Found(*found) for ids, batch, maps in batches for found in zip(ids, predictor.decode(batch, *maps))] + bad

    with ThreadPoolExecutor(max(workers, 1)) as readers, ThreadPoolExecutor(1) as decoder:
        prepared = _ahead(readers, prepare, image_ids, workers + 1)
        for found in _ahead(decoder, decode, map(run, prepared), 1):
            yield from found


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], depth: int) -> Iterator[Result]:
    """function(item) for each item in turn, worked out by the pool for up to `depth` items while the caller is busy with one."""
    futures: deque[Future[Result]] = deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > depth:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()
