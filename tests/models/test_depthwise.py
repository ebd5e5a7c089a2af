"""swahr.models.depthwise against nn.Conv2d, which has the same parameters."""

from __future__ import annotations

import pickle
from copy import deepcopy
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swahr.models import depthwise
from swahr.models.depthwise import DepthwiseConv2d, depthwise_conv2d, use_depthwise_gradients

CHANNELS = 5


def pair(kernel_size: int, dtype: torch.dtype = torch.float32) -> tuple[DepthwiseConv2d, nn.Conv2d]:
    """The same convolution, ours and PyTorch's."""
    ours = DepthwiseConv2d(CHANNELS, kernel_size).to(dtype)
    plain = nn.Conv2d(
        CHANNELS, CHANNELS, kernel_size, padding=kernel_size // 2, groups=CHANNELS, dtype=dtype
    )
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def gradients(conv: nn.Conv2d, maps: Tensor, factor: Tensor) -> list[Tensor]:
    """The output, and the gradients of its sum times factor: of the input, weight and bias."""
    maps = maps.detach().clone().requires_grad_()
    output = conv(maps)
    (output * factor).sum().backward()
    assert maps.grad is not None and conv.weight.grad is not None and conv.bias is not None
    assert conv.bias.grad is not None
    return [output.detach(), maps.grad, conv.weight.grad, conv.bias.grad]


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_pytorch(kernel_size: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours, plain = pair(kernel_size, torch.float64)
    maps, factor = torch.randn(2, 3, CHANNELS, 6, 11, dtype=torch.float64)
    maps, factor = (x.to(memory_format=layout) for x in (maps, factor))
    for mine, theirs in zip(gradients(ours, maps, factor), gradients(plain, maps, factor)):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_input_has_its_layout() -> None:
    maps = torch.randn(2, CHANNELS, 6, 11).to(memory_format=torch.channels_last).requires_grad_()
    features = maps * 1  # Tensor.grad would take the layout of its tensor
    features.register_hook(lambda gradient: strides.append(gradient.stride()))
    strides: list[tuple[int, ...]] = []
    output = DepthwiseConv2d(CHANNELS, 3)(features)
    output.backward(torch.ones_like(output))
    assert strides == [maps.stride()]


def test_weights_learn_in_float32_from_bf16_maps() -> None:
    torch.manual_seed(0)
    ours, exact = pair(9)
    exact = exact.double()
    maps, factor = torch.randn(2, 4, CHANNELS, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        _, of_maps, of_weight, of_bias = gradients(ours, maps, factor)
    expected = gradients(exact, maps.double(), factor.double())
    assert (of_maps.dtype, of_weight.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(of_weight.double(), expected[2], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(of_bias.double(), expected[3], rtol=1e-5, atol=1e-4)
    # Without bf16 units of the processor, PyTorch rounds to bf16 between the steps of a sum: 1 %.
    assert (of_maps.double() - expected[1]).norm() < 0.02 * expected[1].norm()


def test_a_gradient_is_computed_if_it_is_asked_for() -> None:
    conv = DepthwiseConv2d(CHANNELS, 3)
    maps = torch.randn(1, CHANNELS, 4, 4, requires_grad=True)
    conv.requires_grad_(False)
    conv(maps).sum().backward()
    assert maps.grad is not None and conv.weight.grad is None
    conv.requires_grad_(True)
    with patch.object(depthwise, "conv_gradients", wraps=depthwise.conv_gradients) as gradients_of:
        conv(maps.detach()).sum().backward()
    assert conv.weight.grad is not None
    wanted = [call.args[3] for call in gradients_of.call_args_list]
    assert wanted == [(False, True)]
    with torch.no_grad():
        assert not conv(maps).requires_grad


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
def test_strides_and_paddings(
    stride: tuple[int, int], padding: tuple[int, int], kernel_size: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 9, 8).double(), torch.randn(4, 1, *kernel_size).double()
    given = [x, weight, torch.randn(4).double()][: 3 if bias else 2]
    given = [tensor.requires_grad_() for tensor in given]
    offset = given[2] if bias else None
    mine = depthwise_conv2d(x, weight, offset, stride, padding)
    theirs = F.conv2d(x, weight, offset, stride, padding, groups=4)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    factor = torch.randn_like(mine)
    for one, other in zip(
        torch.autograd.grad(mine, given, factor), torch.autograd.grad(theirs, given, factor)
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_strided_maps_in_bf16_get_their_gradient_from_float32() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 8, 16, 16).bfloat16(), torch.randn(8, 1, 3, 3)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = depthwise_conv2d(x, weight, None, (2, 2), (1, 1))
    factor = torch.randn_like(output)
    with patch.object(depthwise, "conv_gradients", wraps=depthwise.conv_gradients) as gradients_of:
        (found,) = torch.autograd.grad(output, x, factor)
    assert gradients_of.call_args.args[0].dtype == torch.float32 and found.dtype == torch.bfloat16
    exact = x.detach().double().requires_grad_()
    F.conv2d(exact, weight.double(), None, 2, 1, groups=8).backward(factor.double())
    assert exact.grad is not None
    assert (found.double() - exact.grad).norm() < 0.005 * exact.grad.norm()


def test_other_devices_have_the_gradients_of_pytorch() -> None:
    for device in ("cpu", "meta"):
        x = torch.ones(1, 4, 6, 6, device=device)
        weight = torch.ones(4, 1, 3, 3, device=device, requires_grad=True)
        output = depthwise_conv2d(x, weight, None)
        assert output.grad_fn is not None
        assert ("Depthwise" in output.grad_fn.name()) == (device == "cpu")


def test_which_layers_of_a_network_train_so() -> None:
    fitting = [nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=4)]
    other = [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding_mode="reflect", padding=1),
    ]
    network = nn.Sequential(nn.ModuleList(fitting), nn.ModuleList(other))
    use_depthwise_gradients(network)
    for copy in (network, deepcopy(network), pickle.loads(pickle.dumps(network))):
        x = torch.randn(1, 4, 12, 12)
        with patch.object(depthwise, "depthwise_conv2d", wraps=depthwise_conv2d) as computed:
            for layer in copy[0]:
                layer(x)
            assert [call.args[1] for call in computed.call_args_list] == [
                layer.weight for layer in copy[0]
            ]
            for layer in copy[1]:
                layer(x)
            assert computed.call_count == len(fitting)


@pytest.mark.slow
def test_patched_layers_compile_without_a_break() -> None:
    conv = nn.Conv2d(4, 4, 3, groups=4)
    expected = conv(torch.ones(1, 4, 6, 6))
    use_depthwise_gradients(conv)
    compiled = torch.compile(nn.Sequential(conv), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.ones(1, 4, 6, 6)), expected)
