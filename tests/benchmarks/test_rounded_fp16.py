"""fp16 on a CPU without units for it: the same as PyTorch's own slow convolutions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def imported() -> Iterator[None]:
    """The module's effect, for one test."""
    plain = nn.Conv2d._conv_forward, nn.ConvTranspose2d.forward
    sys.modules.pop("benchmarks.rounded_fp16", None)
    importlib.import_module("benchmarks.rounded_fp16")
    assert nn.Conv2d._conv_forward is not plain[0]
    assert nn.ConvTranspose2d.forward is not plain[1]
    yield
    nn.Conv2d._conv_forward, nn.ConvTranspose2d.forward = plain  # type: ignore[assignment]


def run(layer: nn.Module, dtype: torch.dtype | None) -> list[Tensor]:
    """Output, and the gradients of the input and the weight."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 5, generator=generator).requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        output = layer(x)
    output.float().square().sum().backward()
    weight = next(layer.parameters())
    assert x.grad is not None and weight.grad is not None
    return [output.detach(), x.grad, weight.grad]


def make_layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Conv2d(4, 3, 3, padding=1), nn.ConvTranspose2d(4, 3, 4, 2, 1)]


def test_it_is_fp16_up_to_the_order_of_sums(request: pytest.FixtureRequest) -> None:
    expected = [run(layer, torch.float16) for layer in make_layers()]
    request.getfixturevalue("imported")
    for layer, (output, *gradients) in zip(make_layers(), expected):
        got, *got_gradients = run(layer, torch.float16)
        assert got.dtype == torch.float16
        torch.testing.assert_close(got, output, rtol=2e-3, atol=2e-3)
        _, *unrounded = run(layer, None)
        for gradient, want, plain in zip(got_gradients, gradients, unrounded):
            torch.testing.assert_close(gradient, want, rtol=1e-2, atol=5e-2)
            assert not torch.equal(gradient, plain)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_other_types_are_as_they_were(
    request: pytest.FixtureRequest, dtype: torch.dtype | None
) -> None:
    expected = [run(layer, dtype) for layer in make_layers()]
    request.getfixturevalue("imported")
    got = [run(layer, dtype) for layer in make_layers()]
    for tensors, wanted in zip(got, expected):
        assert all(torch.equal(tensor, want) for tensor, want in zip(tensors, wanted))
