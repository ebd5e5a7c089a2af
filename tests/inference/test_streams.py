"""On a pretended GPU: the people are those of the CPU, what is copied is small, and decoding does
not wait for the network's next batch.
"""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.pretend_device import DEVICE, STREAMS, Counts, PretendDevice, pretended
from swahr.codec.fast import FastDecoder
from swahr.data.images import Image
from swahr.inference.pipeline import find_people
from swahr.inference.predictor import Predictor
from swahr.models.network import StageOutput
from tests.inference.toy_predictor import colours, image, predictor

WIDE = image(128, 64, [(20, 20), (100, 30)])
# Its joints are missing but for one, so that they are searched.
PARTIAL = image(128, 64, [(20, 20)])
PARTIAL[..., 1] //= 4


def make(fast: bool, device: Any = "cpu", **options: Any) -> Predictor:
    made = predictor(device=device, batch_size=2, **options)
    if fast:
        made.fast = True
        made.decoder = FastDecoder(made.decoder)  # type: ignore[arg-type]
    return made


def on_host(images: Tensor) -> list[StageOutput]:
    """The toy network, of which nothing is counted."""
    outputs = colours(images.inner)  # type: ignore[attr-defined]
    return [stage.map(lambda maps: maps.to(DEVICE)) for stage in outputs]


def same(got: Any, want: Any, tolerance: float) -> None:
    np.testing.assert_allclose(got.keypoints, want.keypoints, atol=tolerance)
    np.testing.assert_allclose(got.scores, want.scores, atol=tolerance)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("scales", [(1,), (0.5, 1)])
def test_the_people_are_those_of_the_cpu(fast: bool, scales: tuple[float, ...]) -> None:
    images = [WIDE, PARTIAL]
    wanted = make(False, scales=scales)(images)
    with pretended():
        gpu = make(fast, DEVICE, scales=scales)
        gpu.model = on_host
        found = gpu(images)
    for got, want in zip(found, wanted, strict=True):
        same(got, want, 1e-5 if fast else 0)


@pytest.mark.parametrize("fast", [False, True])
def test_only_images_and_missing_joints_go_to_the_device(fast: bool) -> None:
    """After a first batch, and without the toy network's own copies."""
    with pretended() as device:
        gpu = make(fast, DEVICE)
        outputs: list[list[StageOutput]] = []
        gpu.model = lambda images: outputs.append(on_host(images)) or outputs[0]
        gpu([WIDE, PARTIAL])
        gpu.model = lambda images: outputs[0]
        [(_, batch)] = gpu.prepare([WIDE, PARTIAL])
        device.counts = Counts()
        maps = gpu.maps(batch)
        assert device.counts.uploads == [2 * 64 * 128 * 3]
        gpu.decode(batch, maps)
        counts = device.counts
    assert len(counts.uploads) == 2 and counts.uploads[1] < 200
    assert len(counts.downloads) == 2 and sum(counts.downloads) < 10_000
    # The exact way waits for its peaks, and both for the joints that were searched.
    assert counts.waits == (1 if fast else 2)


@pytest.mark.parametrize("fast", [False, True])
def test_decoding_begins_after_its_own_batch_and_not_after_the_next(fast: bool) -> None:
    """It has a stream of its own, which waits for the end of its batch on the network's stream."""
    with pretended():
        gpu = make(fast, DEVICE)
        gpu.model = on_host
        [(_, batch)] = gpu.prepare([WIDE])
        first = gpu.maps(batch)
        gpu.maps(batch)
        ends = [event for stream, what, event in STREAMS.order if what == "record"]
        STREAMS.order.clear()
        gpu.decode(batch, first)
        [waited] = [
            event for stream, what, event in STREAMS.order if (what, stream) != ("wait", "host")
        ]
    assert waited in ends[: len(ends) // 2]
    assert STREAMS.order[-1] == ("host", "wait", "MainThread")


class Images:
    def __init__(self, images: list[Image]) -> None:
        self.images = images

    def read(self, image_id: int) -> Image:
        return self.images[image_id]


@pytest.mark.parametrize("decoders", [1, 2])
def test_an_image_is_decoded_while_the_network_runs_on_the_next(decoders: int) -> None:
    """The first image's decoding does not end before the network has the second image, and the
    network does not end the second one before that decoding has begun.
    """
    images = [WIDE, PARTIAL, WIDE[:, ::-1].copy(), PARTIAL[::-1].copy()]
    people = predictor()
    expected = [people([one])[0] for one in images]
    second_batch = Event()
    decoding = Event()
    run = people.model
    decode = people.decoder
    order: list[str] = []

    def network(inputs: Tensor) -> Any:
        order.append("network")
        if len([step for step in order if step == "network"]) == 2:
            second_batch.set()
            assert decoding.wait(30)
        return run(inputs)

    def decoder(maps: Any) -> Any:
        decoding.set()
        assert second_batch.wait(30)
        return decode(maps)

    people.model = network
    people.decoder = decoder
    groups = [[index] for index in range(4)]
    results = list(find_people(Images(images), people, groups, decoders=decoders))
    assert [result.image_id for result in results] == [0, 1, 2, 3]
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.prediction.keypoints, want.keypoints)
        np.testing.assert_array_equal(result.prediction.scores, want.scores)


def test_threads_decode_on_streams_of_their_own() -> None:
    """Through the whole pipeline, on a pretended GPU."""
    images = [WIDE, PARTIAL, WIDE]
    wanted = make(False)(images)
    with pretended():
        gpu = make(True, DEVICE)
        gpu.model = on_host
        decode = gpu.decoder

        def decoder(maps: Any) -> Any:
            with torch.inference_mode(), PretendDevice():
                return decode(maps)

        results = list(find_people(Images(images), Decoding(gpu, decoder), [[0], [1], [2]]))  # type: ignore[arg-type]
        streams = {stream for stream, what, _ in STREAMS.order if what == "wait"} - {"host"}
    assert len(streams) == 1 and "MainThread" not in streams
    for result, want in zip(results, wanted, strict=True):
        same(result.prediction, want, 1e-5)


class Decoding:
    """A predictor whose decoder is called by another function."""

    def __init__(self, inner: Predictor, decoder: Any) -> None:
        self.inner = inner
        self.decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decode(self, batch: Any, maps: Any) -> Any:
        with PretendDevice():
            return self.inner.decode(batch, maps)

    def maps(self, batch: Any) -> Any:
        with PretendDevice():
            return self.inner.maps(batch)
