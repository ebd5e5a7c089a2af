"""Gradients of 3x3 convolutions against PyTorch's in float64, and when they are used."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swahr.acceleration import conv_training, winograd
from swahr.acceleration.conv_training import gradient_of_weight, use_own_convolutions
from tests.acceleration.test_winograd import (
    OTHERS,
    layer,
    maps,
    needs_threads,
    threads,  # noqa: F401  (a fixture)
)


def trained(channels: int, outputs: int, bias: bool = False, stride: int = 1) -> nn.Conv2d:
    torch.manual_seed(channels + outputs)
    conv = nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=bias)
    use_own_convolutions(conv)
    return conv


def gradients(conv: nn.Conv2d, x: Tensor, factor: Tensor) -> list[Tensor]:
    """Output, gradient of the input, and those of the parameters, for a loss (output * factor)."""
    x = x.clone().requires_grad_()
    output = conv(x)
    (output * factor).sum().backward()
    return [output.detach(), *(value.grad for value in (x, *conv.parameters()))]  # type: ignore[list-item]


def compare_with_float64(conv: nn.Conv2d, x: Tensor, factor: Tensor) -> None:
    """Output and gradients are those of PyTorch in float64 up to rounding; what is given stays."""
    exact = copy.deepcopy(conv).double()  # computes with PyTorch's kernels
    given = x.clone(), factor.clone()
    ours = gradients(conv, x, factor)
    for mine, theirs in zip(ours, gradients(exact, x.double(), factor.double()), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 3e-5 * theirs.abs().max()
    assert ours[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, given[0]) and torch.equal(factor, given[1])


def used(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the layer takes its convolution from winograd.py."""
    with patch.object(conv_training, "convolve", wraps=winograd.convolve) as convolve:
        conv(x)
    return bool(convolve.called)


@needs_threads
@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize(
    "batch, channels, outputs, height, width",
    ((2, 32, 64, 24, 24), (3, 64, 48, 22, 31), (1, 96, 32, 26, 37), (5, 64, 64, 17, 19)),
)
def test_gradients_are_those_of_float64(
    batch: int, channels: int, outputs: int, height: int, width: int, bias: bool
) -> None:
    """Also where tiles reach over the edge of the image, and for blocks of one vector and two."""
    conv = trained(channels, outputs, bias)
    x = maps(batch, channels, height, width)
    assert used(conv, x)
    compare_with_float64(conv, x, maps(batch, outputs, height, width, seed=1))


def sums_directly(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the gradient of the weights is that of this project, without Winograd's algorithm."""
    with patch.object(
        conv_training, "gradient_of_weight", wraps=conv_training.gradient_of_weight
    ) as gradient_of_weight:
        conv(x).sum().backward()
    return bool(gradient_of_weight.called) and not gradient_of_weight.call_args.args[3]


@needs_threads
@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize(
    "batch, channels, outputs, height, width, stride",
    (
        (2, 32, 64, 24, 24, 2),
        (3, 48, 48, 9, 14, 2),
        (1, 16, 32, 1, 7, 2),
        (2, 32, 16, 3, 1, 2),
        (3, 64, 32, 6, 5, 1),
        (1, 16, 16, 1, 1, 1),
    ),
)
def test_gradients_with_strides_and_of_small_maps(
    batch: int, channels: int, outputs: int, height: int, width: int, stride: int, bias: bool
) -> None:
    conv = trained(channels, outputs, bias, stride)
    x = maps(batch, channels, height, width)
    assert sums_directly(conv, x)
    conv.zero_grad()
    factor = maps(batch, outputs, -(-height // stride), -(-width // stride), seed=1)
    compare_with_float64(conv, x, factor)


@needs_threads
@pytest.mark.parametrize("count", (1, 2, 3, 7))
@pytest.mark.parametrize("width", (1, 30))
@pytest.mark.parametrize("winograd", (False, True))
def test_any_number_of_threads(
    count: int,
    width: int,
    winograd: bool,
    threads: None,  # noqa: F811
) -> None:
    """More than there are tiles; and the second call is equal to the first to the bit."""
    torch.set_num_threads(count)
    x = maps(2, 16, 3, width)
    factor = maps(2, 32, 3, width, seed=1)
    weight = torch.zeros(32, 16, 3, 3, dtype=torch.float64, requires_grad=True)
    F.conv2d(x.double(), weight, padding=1).backward(factor.double())
    assert weight.grad is not None
    ours = gradient_of_weight(x, factor, winograd=winograd)
    torch.testing.assert_close(ours.double(), weight.grad, rtol=0, atol=1e-4)
    assert torch.equal(gradient_of_weight(x, factor, winograd=winograd), ours)


@needs_threads
@pytest.mark.parametrize("winograd", (False, True))
def test_the_memory_of_many_threads_is_bounded(
    winograd: bool,
    threads: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fewer of them sum then; one always can."""
    x = maps(2, 16, 20, 20)
    factor = maps(2, 32, 20, 20, seed=1)
    expected = gradient_of_weight(x, factor, winograd=winograd)
    torch.set_num_threads(5)
    run = patch.object(conv_training, "run_threads", wraps=conv_training.run_threads)
    of_one = 4 * (36 if winograd else 9) * 16 * 32
    for bound, parts in ((2 * of_one, 2), (5 * of_one, 5), (1, 1)):
        monkeypatch.setattr(conv_training, "MAX_SUMS", bound)
        with run as run_threads:
            ours = gradient_of_weight(x, factor, winograd=winograd)
        assert run_threads.call_args.args[3] == parts
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)


@needs_threads
@pytest.mark.parametrize("winograd", (False, True))
def test_one_thread_does_the_work_of_all(winograd: bool, threads: None) -> None:  # noqa: F811
    """OpenMP may start fewer threads than it is asked for."""
    torch.set_num_threads(3)
    x, factor = maps(2, 16, 20, 20), maps(2, 16, 20, 20, seed=1)
    expected = gradient_of_weight(x, factor, winograd=winograd)

    def run_one(*given: object) -> None:
        run_threads(*given[:3], 1)  # type: ignore[arg-type]

    run_threads = conv_training.run_threads
    with patch.object(conv_training, "run_threads", run_one):
        assert torch.equal(gradient_of_weight(x, factor, winograd=winograd), expected)


@needs_threads
def test_a_gradient_is_computed_if_it_is_asked_for() -> None:
    conv = trained(32, 32)
    x = maps(1, 32, 24, 24)
    with patch.object(conv_training, "gradient_of_input") as of_input:
        conv(x).sum().backward()
    assert not of_input.called and conv.weight.grad is not None
    conv.requires_grad_(False)
    with patch.object(conv_training, "gradient_of_weight") as of_weight:
        conv(x.requires_grad_()).sum().backward()
    assert not of_weight.called and x.grad is not None


@needs_threads
def test_when_they_are_used() -> None:
    conv = trained(32, 32)
    x = maps(1, 32, 24, 24)
    assert used(conv, x) and used(copy.deepcopy(conv), x)
    assert not used(conv, x.contiguous())  # channels first
    assert not used(conv, maps(1, 32, 6, 6))  # too small
    assert sums_directly(conv, maps(1, 32, 6, 6)) and not sums_directly(conv, x)
    assert not used(trained(32, 20), x)  # not whole vectors
    with torch.no_grad():
        assert not used(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not used(conv, x)
    assert not used(nn.Conv2d(32, 32, 3, padding=1), x)
    with patch.object(conv_training, "are_gradients_right", return_value=False):
        assert not used(conv, x)


@needs_threads
@pytest.mark.parametrize("settings", OTHERS, ids=str)
def test_other_convolutions_stay_pytorchs(settings: dict[str, object]) -> None:
    """To the bit; also where a layer became another one after it was changed."""
    plain = layer(32, 32, **settings).requires_grad_()
    changed = copy.deepcopy(plain)
    use_own_convolutions(changed)
    mutated = layer(32, 32).requires_grad_()
    use_own_convolutions(mutated)
    forward = mutated.forward
    mutated.__dict__.update(vars(plain))
    mutated.forward = forward  # type: ignore[method-assign]
    x = maps(1, 32, 24, 24)
    expected = gradients(plain, x, torch.ones(()))
    plain.zero_grad()
    for conv in (changed, mutated):
        conv.zero_grad()
        for ours, theirs in zip(gradients(conv, x, torch.ones(())), expected, strict=True):
            assert torch.equal(ours, theirs)


@needs_threads
@pytest.mark.parametrize("stride", (1, 2))
def test_a_batch_of_no_images_has_gradients_of_zero(stride: int) -> None:
    conv = trained(32, 32, bias=True, stride=stride)
    x = maps(0, 32, 24, 24).requires_grad_()
    conv(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    assert all(not parameter.grad.any() for parameter in conv.parameters())  # type: ignore[union-attr]


@needs_threads
@pytest.mark.parametrize("copied", (copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))))
def test_a_copy_has_weights_of_its_own(copied: Callable[[nn.Module], nn.Module]) -> None:
    """Copies and pickles of networks compute with the kernels too."""
    conv = trained(32, 32)
    x = maps(1, 32, 24, 24)
    before = conv(x)
    (other,) = copied(nn.Sequential(conv))
    with torch.no_grad():
        conv.weight.zero_()
    assert torch.equal(other(x), before) and not conv(x).any()
    assert used(other, x)


def test_which_layers_are_changed() -> None:
    """Those of 3x3 whose forward is PyTorch's, and the names of no weights."""
    patched = layer(8, 8)
    own = patched.forward = lambda x: x  # type: ignore[method-assign]
    model = nn.Sequential(
        layer(8, 8),
        layer(8, 8, stride=2),
        nn.Conv2d(8, 8, 1),
        nn.ConvTranspose2d(8, 8, 3, padding=1),
        layer(8, 8, groups=8),
        patched,
    )
    names = list(model.state_dict())
    before = [vars(module).get("forward") for module in model]
    use_own_convolutions(model)
    after = [vars(module).get("forward") for module in model]
    changed = [now is not then for now, then in zip(after, before)]
    assert changed == [True, True, False, False, False, False] and patched.forward is own
    assert list(model.state_dict()) == names


@needs_threads
@pytest.mark.parametrize("name", ("input", "weight"))
def test_gradients_are_compared_once_before_they_are_used(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = getattr(conv_training, f"gradient_of_{name}")
    monkeypatch.setattr(conv_training, f"gradient_of_{name}", lambda *given: right(*given) * 1.01)
    conv_training.are_gradients_right.cache_clear()
    try:
        assert [conv_training.are_gradients_right() for _ in range(2)] == [False, False]
    finally:
        conv_training.are_gradients_right.cache_clear()
    (line,) = caplog.messages
    assert line.startswith(
        f"TRAIN.CPU_KERNELS are not used: the gradient of the {name} differs from PyTorch's by up"
    )
