"""From image ids to people: threads read and warp images before the network needs them, and others
decode people while the network runs on the next batch.

Validation and inference on a user's own images share this pipeline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from swahr.codec.maps import Maps
from swahr.codec.sampled import SampledMaps
from swahr.data.images import Image, ImageError
from swahr.inference.predictor import (
    ImageGeometry,
    Prediction,
    PredictionError,
    Predictor,
    PreparedBatch,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


class ImageSource(Protocol):
    """Where images come from. An image id is a number or a name."""

    def read(self, image_id: Any, /) -> Image:
        """The image (H, W, 3) uint8 RGB. Raises ImageError if it cannot be read."""
        ...


class ImageResult(NamedTuple):
    """The result of one image: its people, or None and the reason why the image was skipped."""

    image_id: Any
    prediction: Prediction | None
    problem: str = ""


class ImageGroup(NamedTuple):
    """Images that go through the pipeline together.

    batches: the ids and the prepared images of each batch. skipped: results of the images that
    cannot be used. maps: the network's maps of each batch, empty before the network has run.
    """

    batches: list[tuple[list[Any], PreparedBatch]]
    skipped: list[ImageResult]
    maps: list[Maps | SampledMaps]


def find_people(
    source: ImageSource,
    predictor: Predictor,
    groups: Iterable[Sequence[Any]],
    *,
    workers: int = 4,
    skip_bad: bool = False,
    decoders: int = 1,
    look_ahead: bool = True,
) -> Generator[ImageResult]:
    """Find the people in groups of images, given by their ids. Yields one result per image, group
    by group; within a group, images of one input size come together and skipped images last.

    workers: number of threads that read and warp images. decoders: of threads that decode; the maps
    of as many groups wait for them in memory. look_ahead: take later groups while one is worked on;
    otherwise the results of each come before the next is asked for. skip_bad: report an image that
    cannot be read, or that is too long and thin, as a result with a problem. Otherwise it raises
    ImageError or PredictionError, after the results of the groups before it.
    """

    def prepare(ids: Sequence[Any]) -> ImageGroup:
        used: list[Any] = []
        images: list[Image] = []
        geometries: list[ImageGeometry] = []
        skipped: list[ImageResult] = []
        for image_id in ids:
            try:
                image, geometry = read(source, predictor, image_id)
            except (ImageError, PredictionError) as error:
                if not skip_bad:
                    raise
                skipped.append(ImageResult(image_id, None, str(error)))
                continue
            used.append(image_id)
            images.append(image)
            geometries.append(geometry)
        batches = [
            ([used[index] for index in indices], batch)
            for indices, batch in predictor.prepare(images, geometries)
        ]
        return ImageGroup(batches, skipped, [])

    def run_network(group: ImageGroup) -> ImageGroup:
        return group._replace(maps=[predictor.maps(batch) for _, batch in group.batches])

    def decode(group: ImageGroup) -> list[ImageResult]:
        found = [
            ImageResult(image_id, people)
            for (ids, batch), maps in zip(group.batches, group.maps)
            for image_id, people in zip(ids, predictor.decode(batch, maps))
        ]
        return found + group.skipped

    with thread_pool(workers) as readers, thread_pool(decoders) as pool:
        prepared = prefetch(readers, prepare, groups, workers + 1 if look_ahead else 0)
        mapped = map(run_network, prepared)
        for results in prefetch(pool, decode, mapped, decoders if look_ahead else 0):
            yield from results


def read(source: ImageSource, predictor: Predictor, image_id: Any) -> tuple[Image, ImageGeometry]:
    """An image and where it lies on the network's inputs. Raises ImageError, or PredictionError
    with the image's id, if the predictor cannot take it.
    """
    image = source.read(image_id)
    try:
        return image, predictor.geometries_of(image)
    except PredictionError as error:
        raise PredictionError(f"image {image_id}: {error}") from None


def prefetch(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Generator[Result]:
    """Yield function(item) for each item in turn, while the pool works on up to `depth` items
    more.

    If the items end with an error, the results of all items before it are yielded first.
    """
    futures: deque[Future[Result]] = deque()
    iterator = iter(items)
    error: Exception | None = None
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            break
        except Exception as failure:
            error = failure
            break
        futures.append(pool.submit(function, item))
        if len(futures) > depth:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()
    if error is not None:
        raise error


@contextmanager
def thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of at least one thread. At the end, work that has not begun is cancelled, so that an
    error or a stop does not wait for it.
    """
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
