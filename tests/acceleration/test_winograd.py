from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swahr.acceleration import winograd
from swahr.acceleration.fuse import optimize_for_inference
from swahr.acceleration.winograd import (
    Filters,
    can_convolve,
    convolve,
    is_plain_3x3,
    transform_filters,
)
from swahr.models.heads.higher_hrnet import DeconvSettings
from tests.models.tiny_networks import images, network

ROOT = Path(__file__).resolve().parents[2]
needs_threads = pytest.mark.skipif(not winograd.is_supported(), reason="needs Linux and AVX2")


def maps(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator).to(
        memory_format=torch.channels_last
    )


def layer(channels: int, outputs: int, **settings: object) -> nn.Conv2d:
    torch.manual_seed(channels + outputs)
    return nn.Conv2d(channels, outputs, 3, **{"padding": 1, **settings}).requires_grad_(False)  # type: ignore[arg-type]


# Settings of layers whose convolution is another one.
OTHERS: list[dict[str, object]] = [
    {"dilation": 2},
    {"padding": 0},
    {"padding": 2, "dilation": 2},
    {"padding": "same"},
    {"groups": 2},
    {"padding_mode": "circular"},
]


def convolved(
    x: Tensor, conv: nn.Conv2d, total: Tensor | None = None, relu: bool = False
) -> Tensor:
    assert conv.bias is not None
    return convolve(x, transform_filters(conv.weight), conv.bias, total, relu)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_threads
@pytest.mark.parametrize("relu", (False, True))
@pytest.mark.parametrize("add", (False, True))
@pytest.mark.parametrize(
    "batch, channels, outputs, height, width",
    (
        (1, 32, 32, 16, 16),
        (3, 32, 64, 9, 14),
        (1, 64, 32, 1, 1),
        (2, 16, 96, 5, 30),
        (1, 48, 48, 31, 4),
        (5, 64, 64, 2, 3),
        (1, 256, 32, 12, 12),
        (1, 32, 16, 9, 9),
    ),
)
def test_same_as_the_direct_sum(
    batch: int, channels: int, outputs: int, height: int, width: int, add: bool, relu: bool
) -> None:
    """Of float64; also where tiles reach over the edge of the image, and for blocks of 1, 2 and 3
    vectors.
    """
    x = maps(batch, channels, height, width)
    conv = layer(channels, outputs)
    total = maps(batch, outputs, height, width, seed=1) if add else None
    expected = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)  # type: ignore[union-attr]
    expected = expected if total is None else expected + total.double()
    given = x.clone()
    results = convolved(x, conv, total, relu)
    torch.testing.assert_close(
        results, (expected.relu() if relu else expected).float(), rtol=0, atol=1e-5
    )
    assert torch.equal(x, given) and results.is_contiguous(memory_format=torch.channels_last)
    assert total is None or results.data_ptr() == total.data_ptr()


@needs_threads
def test_the_same_to_the_bit_however_the_work_is_divided(threads: None) -> None:
    """By number of threads, by batch, and while others convolve in threads of their own."""
    x = maps(3, 64, 21, 50)
    conv = layer(64, 96)
    expected = convolved(x, conv)
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        assert torch.equal(convolved(x, conv), expected)
    single = [
        convolved(one.unsqueeze(0).contiguous(memory_format=torch.channels_last), conv) for one in x
    ]
    assert torch.equal(torch.cat(single), expected)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            torch.equal(results, expected)
            for results in pool.map(lambda _: convolved(x, conv), range(8))
        )


@needs_threads
def test_of_float32_whatever_the_default() -> None:
    x = maps(1, 32, 12, 12)
    conv = layer(32, 32)
    expected = convolved(x, conv)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(convolved(x, conv), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@needs_threads
@pytest.mark.parametrize("relu", (False, True))
@pytest.mark.parametrize("add", (False, True))
@pytest.mark.parametrize(("channels", "outputs", "size"), ((32, 32, 24), (64, 96, 23)))
def test_bf16_is_float32_rounded_once(
    channels: int, outputs: int, size: int, add: bool, relu: bool
) -> None:
    x = maps(2, channels, size, size).bfloat16()
    conv = layer(channels, outputs).bfloat16()
    total = maps(2, outputs, size, size, seed=1).bfloat16() if add else None
    expected = convolved(
        x.float(), copy.deepcopy(conv).float(), None if total is None else total.float(), relu
    )
    assert torch.equal(convolved(x, conv, total, relu), expected.bfloat16())


@needs_threads
@pytest.mark.parametrize("size", (8, 7))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_what_is_not_a_number_stays_so(dtype: torch.dtype, size: int) -> None:
    x = maps(1, 32, size, size).to(dtype)
    x[0, 3, 5, 5] = torch.nan
    results = convolved(x, layer(32, 32).to(dtype), relu=True)
    assert results[0, :, 4:7, 4:7].isnan().all() and results[0, :, :3, :3].isfinite().all()


def bits() -> str:
    """Of maps with tiles that reach over the edge, and of some without."""
    results = [
        convolved(maps(2, 64, *size), layer(64, 96), maps(2, 96, *size, seed=1))
        for size in ((7, 10), (12, 8))
    ]
    return "".join(each.numpy().tobytes().hex() for each in results)


@pytest.mark.slow
@needs_threads
def test_another_processor_gives_the_same_bits() -> None:
    """One with vectors of 8 values, where this one may have 16."""
    script = (
        "from tests.acceleration.test_winograd import bits, winograd; "
        "assert winograd.LANES == 8; print(bits())"
    )
    env = {
        **os.environ,
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "lib"), str(ROOT))),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == bits()


def test_plain_3x3() -> None:
    assert is_plain_3x3(layer(4, 8)) and is_plain_3x3(layer(4, 8, stride=2))
    assert not any(is_plain_3x3(layer(4, 8, **settings)) for settings in OTHERS)
    assert not is_plain_3x3(nn.Conv2d(4, 8, (3, 5), padding=1))


@needs_threads
def test_what_it_can_do() -> None:
    x = maps(1, 64, 24, 24)
    conv = layer(64, 64)
    assert can_convolve(conv, x) and can_convolve(conv, x, maps(1, 64, 24, 24))
    for other in (
        layer(64, 64, stride=2),
        layer(64, 64, groups=2),
        layer(64, 65),
        layer(64, 64).double(),
    ):
        assert not can_convolve(other, x)
    assert not can_convolve(layer(65, 64), maps(1, 65, 24, 24))
    assert not can_convolve(conv, x.contiguous()) and not can_convolve(conv, x, x.contiguous())
    assert not can_convolve(conv, x.double()) and not can_convolve(conv, maps(0, 64, 24, 24))


@needs_threads
def test_when_it_takes_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "HAS_AMX", False)
    conv = layer(64, 64).bfloat16()
    x = maps(1, 64, 24, 24).bfloat16()
    assert can_convolve(conv, x) and can_convolve(conv, x, x.clone())
    assert not can_convolve(conv, x.float()) and not can_convolve(conv, x, x.float())
    assert not can_convolve(conv.float(), x)
    conv = conv.bfloat16()
    assert not can_convolve(conv, maps(1, 64, 22, 23).bfloat16())
    monkeypatch.setattr(winograd, "HAS_AMX", True)
    assert not can_convolve(conv, x) and can_convolve(conv.float(), x.float())


@needs_threads
def test_small_and_thin_maps_are_left_to_the_direct_sum() -> None:
    """However many there are: what is done to an image does not depend on the batch."""
    for channels, height, width in ((256, 4, 4), (64, 1, 500), (16, 16, 16)):
        conv = layer(channels, channels)
        assert not any(can_convolve(conv, maps(batch, channels, height, width)) for batch in (1, 9))


@pytest.mark.parametrize("available", (True, False))
@torch.no_grad()
def test_networks_use_it_where_they_can(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(deconvs=(DeconvSettings(64, num_blocks=1),))
    batch = images()
    calls = []
    expected = model(batch)
    if not available:
        monkeypatch.setattr(winograd, "is_available", lambda _: False)
    monkeypatch.setattr(winograd, "convolve", lambda *given: calls.append(1) or convolve(*given))
    for got, want in zip(optimize_for_inference(model)(batch), expected):
        torch.testing.assert_close(
            got.heatmaps, want.heatmaps, rtol=0, atol=1e-4 * float(want.heatmaps.abs().max())
        )
    assert bool(calls) == (available and winograd.is_supported())


@pytest.fixture
def not_compared_yet() -> Iterator[None]:
    winograd.is_available.cache_clear()
    yield
    winograd.is_available.cache_clear()


def without_relu(x: Tensor, filters: Filters, bias: Tensor, *given: object) -> Tensor:
    return convolve(x, filters, bias, given[0] if given else None)  # type: ignore[arg-type]


def with_another_bias(x: Tensor, filters: Filters, bias: Tensor, *given: object) -> Tensor:
    return convolve(x, filters, bias * 1.01, *given)  # type: ignore[arg-type]


def without_compiler(*given: object) -> Tensor:
    raise ValueError("no such instruction\nat 0")


@needs_threads
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (convolve, ""),
        (without_relu, "sum and ReLU to "),
        (with_another_bias, "convolution to "),
        (without_compiler, "ValueError: no such instruction"),
    ],
)
def test_convolutions_are_compared_once_before_they_are_used(
    wrong: Callable[..., Tensor],
    said: str,
    not_compared_yet: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(winograd, "convolve", wrong)
    found = [can_convolve(layer(64, 64), maps(1, 64, 24, 24)) for _ in range(2)]
    assert found == [not said] * 2
    assert len(caplog.messages) == bool(said)
    assert "".join(caplog.messages).startswith(
        f"the fast CPU convolutions are not used: {said}" if said else ""
    )
