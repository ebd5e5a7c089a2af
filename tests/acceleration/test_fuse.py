from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from benchmarks import pretend_device
from benchmarks.pretend_device import DEVICE, pretended
from swahr.acceleration.fuse import (
    can_fuse_by_cudnn,
    fold_batch_norms,
    optimize_for_inference,
    refresh,
    supports_dtype,
    verified,
)
from swahr.models.backbones.hrnet import HRNet
from swahr.models.blocks import BasicBlock, Bottleneck
from swahr.models.heads.higher_hrnet import DeconvSettings
from swahr.models.network import Head, PoseNetwork, StageOutput
from swahr.models.weights import published_state
from tests.models.tiny_networks import STAGES, VARIANTS, images, network, randomized

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def assert_same(
    outputs: list[StageOutput], expected: list[StageOutput], tolerance: float = 1e-4
) -> None:
    """Heatmaps and tags within `tolerance` of the largest value; no scales."""
    assert len(outputs) == len(expected)
    for output, reference in zip(outputs, expected):
        assert isinstance(output, StageOutput) and output.scales is None
        for part, wanted in ((output.heatmaps, reference.heatmaps), (output.tags, reference.tags)):
            assert (part is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(
                    part, wanted, rtol=0, atol=tolerance * float(wanted.abs().max())
                )


def in_float(outputs: list[StageOutput]) -> list[StageOutput]:
    return [output.map(torch.Tensor.float) for output in outputs]


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_same_outputs(variant: str) -> None:
    model = network(variant)
    copies = (
        optimize_for_inference(model),
        optimize_for_inference(model, channels_last=False),
        fold_batch_norms(model),
    )
    for faster in copies:
        for batch in (images(2, 64, 32), images(1, 32, 64).to(memory_format=torch.channels_last)):
            assert_same(faster(batch), model(batch))


def test_nothing_is_left_to_fold_and_the_original_is_untouched() -> None:
    model = network().train()
    batch = images()
    state = copy.deepcopy(published_state(model))
    before = batch.clone()
    faster = optimize_for_inference(model)
    with torch.no_grad():
        faster(batch)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in faster.modules())
    assert not faster.training and model.training
    assert not any(parameter.requires_grad for parameter in faster.parameters())
    assert torch.equal(batch, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in published_state(model).items())


@torch.no_grad()
def test_repeated_calls_agree() -> None:
    """Sums overwrite their inputs, so a second look at the same image tells whether one too many is
    overwritten.
    """
    faster = optimize_for_inference(network())
    batch = images()
    first = faster(batch)
    second = faster(batch)
    assert all(torch.equal(one.heatmaps, other.heatmaps) for one, other in zip(first, second))


@torch.no_grad()
def test_other_precisions() -> None:
    model = network()
    batch = images()
    faster = optimize_for_inference(model)
    expected = model(images())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = faster(batch)
    assert outputs[0].heatmaps.dtype == torch.bfloat16
    assert_same(in_float(outputs), expected, 0.05)
    for dtype, tolerance in (
        (torch.float64, 1e-4),
        (torch.bfloat16, 0.05),
    ):  # after it has been used in another one
        assert_same(in_float(faster.to(dtype)(batch.to(dtype))), expected, tolerance)
    lower = optimize_for_inference(model, dtype=torch.bfloat16)
    assert all(parameter.dtype == torch.bfloat16 for parameter in lower.parameters())
    assert_same(in_float(lower(batch.bfloat16())), expected, 0.05)


def test_which_types_weights_can_have() -> None:
    assert supports_dtype(torch.float32, CPU) and supports_dtype(
        torch.float16, torch.device("cuda")
    )
    assert not supports_dtype(torch.float16, CPU)


def test_synchronised_batch_norms_fold_too() -> None:
    model = network()
    with torch.no_grad():
        expected = model(images())
        assert_same(
            fold_batch_norms(nn.SyncBatchNorm.convert_sync_batchnorm(model))(images()), expected
        )  # type: ignore


class Custom(Head):
    """A head whose code this package does not know: features -> one heatmap through `layers`."""

    upsampling = (1,)

    def __init__(self, channels: int, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels, 3, 1)

    def forward(self, features: Tensor) -> list[StageOutput]:
        return [StageOutput(None, self.last(self.layers(features)), None)]


class Reused(Custom):
    """Reads its features again after blocks that could overwrite them."""

    def forward(self, features: Tensor) -> list[StageOutput]:
        return [StageOutput(None, self.last(self.layers(features) + features), None)]


class NormFirst(Custom):
    """Applies its norm before the convolution that is registered before it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> list[StageOutput]:
        return [StageOutput(None, self.last(self.conv(self.norm(features))), None)]


class Tapped(Custom):
    """Reads a feature in the middle of a sequence, before its ReLU."""

    def forward(self, features: Tensor) -> list[StageOutput]:
        middle = self.layers[0](features)
        return [StageOutput(None, self.last(self.layers(features) + middle), None)]


def one_more(module: nn.Module, inputs: object, output: Any) -> Any:
    """A hook that changes the output, a map or a list of maps."""
    return output + 1 if isinstance(output, Tensor) else [maps + 1 for maps in output]


def hooked(index: int, *layers: nn.Module) -> Custom:
    """A head with a hook on one of its layers."""
    layers[index].register_forward_hook(one_more)
    return Custom(C, *layers)


def conv_norm(channels: int, **settings: object) -> tuple[nn.Module, nn.Module]:
    kernel = settings.pop("kernel", 3)
    return nn.Conv2d(channels, channels, kernel, **settings), nn.BatchNorm2d(channels)  # type: ignore[arg-type]


def bottleneck_with(channels: int, **parts: nn.Module) -> Bottleneck:
    block = Bottleneck(channels, channels // 4)
    for name, part in parts.items():
        setattr(block, name, part)
    return block


C = 16
MODIFIED: dict[str, Callable[[], Head]] = {
    "several ReLUs": lambda: Custom(
        C,
        *conv_norm(C, padding=1),
        nn.ReLU(),
        *conv_norm(C, padding=1),
        nn.ReLU(),
        nn.Conv2d(C, C, 1),
    ),
    "ReLU behind the second": lambda: Custom(C, nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1), nn.ReLU()),
    "depthwise": lambda: Custom(
        C, nn.Conv2d(C, C, 1), *conv_norm(C, padding=1, groups=C), nn.ReLU(), nn.Conv2d(C, C, 1)
    ),
    "reflect": lambda: Custom(C, *conv_norm(C, padding=1, padding_mode="reflect"), nn.ReLU()),
    "circular": lambda: Custom(C, *conv_norm(C, padding=1, padding_mode="circular"), nn.ReLU()),
    "dilated": lambda: Custom(C, *conv_norm(C, padding=2, dilation=2), nn.ReLU()),
    "groups": lambda: Custom(C, *conv_norm(C, padding=1, groups=4), nn.ReLU()),
    "same": lambda: Custom(C, *conv_norm(C, padding="same"), nn.ReLU()),
    "transposed, in groups": lambda: Custom(
        C, nn.ConvTranspose2d(C, C, 3, padding=1, groups=2), nn.BatchNorm2d(C), nn.ReLU()
    ),
    "norm before its convolution": lambda: NormFirst(C),
    "two norms": lambda: Custom(C, *conv_norm(C, padding=1), nn.BatchNorm2d(C), nn.ReLU()),
    "norm of the batch": lambda: Custom(
        C, nn.Conv2d(C, C, 1), nn.BatchNorm2d(C, track_running_stats=False), nn.ReLU()
    ),
    "norm without weights": lambda: Custom(C, nn.Conv2d(C, C, 1), nn.BatchNorm2d(C, affine=False)),
    "other activation": lambda: Custom(C, *conv_norm(C, padding=1), nn.GELU(), nn.ReLU()),
    "reused feature": lambda: Reused(C, BasicBlock(C, C), BasicBlock(C, C)),
    "reused behind an identity": lambda: Reused(C, nn.Identity(), nn.Dropout(), BasicBlock(C, C)),
    "reused, nested": lambda: Reused(C, nn.Sequential(BasicBlock(C, C)), BasicBlock(C, C)),
    "block with GELU": lambda: Reused(C, bottleneck_with(C, relu=nn.GELU())),
    "block with a circular part": lambda: Reused(
        C, bottleneck_with(C, conv2=nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))
    ),
    "block with a norm by group": lambda: Reused(C, bottleneck_with(C, bn3=nn.GroupNorm(2, C))),
    "hook on a block": lambda: hooked(0, BasicBlock(C, C), nn.ReLU()),
    "hook on a convolution": lambda: hooked(0, nn.Conv2d(C, C, 1), nn.ReLU()),
    "hook before a norm": lambda: hooked(0, *conv_norm(C, padding=1)),
    "hook on a norm": lambda: hooked(1, *conv_norm(C, padding=1)),
    "hook on a ReLU": lambda: hooked(1, nn.Conv2d(C, C, 1), nn.ReLU()),
    "weight norm": lambda: Custom(
        C, nn.utils.parametrizations.weight_norm(nn.Conv2d(C, C, 1)), nn.BatchNorm2d(C), nn.ReLU()
    ),
}


def with_head(head: Head, **changes: Any) -> PoseNetwork:
    stages = (*STAGES[:2], STAGES[2]._replace(num_channels=(C, 6, 8, 4)))
    return randomized(PoseNetwork(network(stages=stages, **changes).backbone, head))


@pytest.mark.parametrize("name", MODIFIED)
@torch.inference_mode()
def test_modified_networks_keep_their_results(name: str) -> None:
    model = with_head(MODIFIED[name]())
    expected = model(images())
    for fast in (fold_batch_norms(model), optimize_for_inference(model)):
        assert_same(fast(images()), expected)


def exchanged(change: Callable[[HRNet], None]) -> PoseNetwork:
    model = network()
    change(cast(HRNet, model.backbone))
    return randomized(model)


def replace_upsampling(backbone: HRNet) -> None:
    backbone.stage2[0].fuse_layers[0][1][2] = nn.Upsample(scale_factor=2.0, mode="bilinear")


def add_upsampling_layer(backbone: HRNet) -> None:
    backbone.stage3[0].fuse_layers[0][1].append(nn.Tanh())


def replace_downsampling(backbone: HRNet) -> None:
    backbone.stage3[0].fuse_layers[2][0][0][2] = nn.GELU()


def replace_activation(backbone: HRNet) -> None:
    backbone.stage2[0].relu = nn.GELU()


def replace_stem(backbone: HRNet) -> None:
    backbone.relu = nn.GELU()


def replace_module(backbone: HRNet) -> None:
    backbone.stage4[1] = Doubled(backbone.stage4[1])


def watch_module(backbone: HRNet) -> None:
    backbone.stage3[0].register_forward_hook(one_more)


class Doubled(nn.Module):
    """Reads its inputs before and after the module that could overwrite them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [self.module(features)[0] + features[0]]


class Twice(HRNet):
    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn2(self.conv2(self.bn1(self.conv1(images)))))
        branches = self.stage2([layer(self.layer1(x)) for layer in self.transition1])
        again = self.stage2([branches[0], branches[1]])
        return again[0] + branches[0]


@pytest.mark.parametrize(
    "change",
    [
        replace_upsampling,
        add_upsampling_layer,
        replace_downsampling,
        replace_activation,
        replace_stem,
        replace_module,
        watch_module,
    ],
)
@torch.inference_mode()
def test_modified_backbones_keep_their_results(change: Callable[[HRNet], None]) -> None:
    model = exchanged(change)
    expected = model(images())
    for fast in (fold_batch_norms(model), optimize_for_inference(model)):
        assert_same(fast(images()), expected)


@torch.inference_mode()
def test_subclasses_keep_their_results() -> None:
    model = network()
    twice = Twice(stages=STAGES)
    model = randomized(PoseNetwork(twice, model.head))
    assert_same(optimize_for_inference(model)(images()), model(images()))


def test_known_networks_are_fused() -> None:
    """In particular those of the other tests: everything that can be is."""
    fast = optimize_for_inference(network())
    kinds = {type(module).__name__ for module in fast.modules()}
    assert not kinds & {"BasicBlock", "Bottleneck", "HighResolutionModule", "BatchNorm2d"}


def test_verified_networks_are_used(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    for fast in (
        optimize_for_inference(model),
        optimize_for_inference(model, dtype=torch.bfloat16),
    ):
        assert verified(fast, model, (64, 96)) is fast
    assert not caplog.records


WRONG: dict[str, tuple[Callable[[], Head], str]] = {
    "middle": (lambda: Tapped(C, nn.Conv2d(C, C, 1), nn.ReLU()), "heatmaps of stage 0 differ by"),
    "raises": (
        lambda: Doubting(C, nn.Conv2d(C, C, 1), nn.ReLU()),
        "AttributeError: '_FusedConv' object has no attribute 'weight'",
    ),
}


class Doubting(Custom):
    """Uses the weight of a layer itself."""

    def forward(self, features: Tensor) -> list[StageOutput]:
        maps = nn.functional.conv2d(features, self.layers[0].weight)
        return [StageOutput(None, self.last(maps), None)]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_networks_are_used_where_fused_ones_differ(
    name: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    head, message = WRONG[name]
    model = with_head(head())
    chosen = verified(optimize_for_inference(model, dtype=dtype), model, (64, 96))
    [record] = caplog.records
    assert record.getMessage().startswith("fusing layers changes what this network computes, so it")
    assert message in record.getMessage() and "\n" not in record.getMessage()
    with torch.inference_mode():
        assert_same(in_float(chosen(images().to(dtype))), model(images()), 0.05)
    assert (chosen is model) == (dtype == torch.float32)


class Cancelling(nn.Module):
    """Small maps that are differences of large numbers, `shift` added."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.tensor(4000.0))
        self.shift = shift

    def forward(self, images: Tensor) -> list[StageOutput]:
        return [StageOutput(None, (images + self.large) - self.large + self.shift, None)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_the_type_is_no_difference(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Cancelling()
    fast = Cancelling().to(dtype)
    assert verified(fast, plain, (8, 8)) is fast
    assert not caplog.records


@pytest.mark.parametrize(
    ("dtype", "shift"), [(torch.bfloat16, 200.0), (torch.float16, 10.0), (torch.float32, 0.1)]
)
def test_more_than_rounding_is_a_difference(
    dtype: torch.dtype, shift: float, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = Cancelling(shift).to(dtype)
    assert verified(wrong, Cancelling(), (8, 8)) is not wrong
    assert "heatmaps of stage 0 differ by" in caplog.text


class Maps(nn.Module):
    """Gives the same maps for every image."""

    def __init__(self, *stages: StageOutput) -> None:
        super().__init__()
        self.stages = list(stages)

    def forward(self, images: Tensor) -> list[StageOutput]:
        return self.stages


def maps(value: float = 1.0, size: int = 4) -> Tensor:
    return torch.full((1, 2, size, size), value)


PLAIN = StageOutput(maps(), maps(), maps(), {"depth": maps()})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([PLAIN], ""),
        ([StageOutput(None, maps(), maps())], ""),
        ([StageOutput(None, maps(1.0001), maps())], ""),
        ([], "0 resolutions instead of 1"),
        ([StageOutput(None, maps(), None)], "no tags at stage 0"),
        ([StageOutput(None, maps(size=8), maps())], "heatmaps of another shape at stage 0"),
        ([StageOutput(None, maps(1.01), maps())], "heatmaps of stage 0 differ by up to 0.01, the"),
        ([StageOutput(None, maps(), maps(float("nan")))], "tags of stage 0 differ by up to nan"),
        ([StageOutput(None, maps(), maps(), {"depth": maps(0)})], "depth of stage 0 differ"),
        ([StageOutput(None, maps(), maps(), {"width": maps()})], "width of another shape"),
    ],
)
def test_what_counts_as_a_difference(
    stages: list[StageOutput], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Maps(PLAIN)
    fast = Maps(*stages)
    assert verified(fast, plain, (8, 8)) is (plain if message else fast)
    assert message in caplog.text and bool(caplog.records) == bool(message)


@torch.inference_mode()
def test_networks_without_finite_results_are_no_difference() -> None:
    spoilt = StageOutput(None, maps(float("nan")), None)
    fast = Maps(spoilt)
    assert verified(fast, Maps(spoilt), (8, 8)) is fast


def test_the_check_is_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32, cuDNN's default, rounds by more than the check allows."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []
    model = network().eval()
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    verified(optimize_for_inference(model), model, (64, 64))
    assert seen and not any(seen)
    assert torch.backends.cudnn.allow_tf32


def test_the_check_leaves_the_random_numbers_alone() -> None:
    model = network()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    verified(optimize_for_inference(model), model, (32, 32))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.inference_mode()
def test_used_networks_can_be_copied(copied: Callable[[PoseNetwork], PoseNetwork]) -> None:
    """Also their wide layers, which winograd.py computes."""
    fast = optimize_for_inference(network(deconvs=(DeconvSettings(64, num_blocks=1),)))
    expected = fast(images())
    for again in (copied(fast), copied(copied(fast))):
        for got, want in zip(again(images()), expected, strict=True):
            assert torch.equal(got.heatmaps, want.heatmaps)


FORKED = """
import os, signal, sys
import torch
from swahr.acceleration.fuse import optimize_for_inference
from swahr.models.heads.higher_hrnet import DeconvSettings
from tests.models.tiny_networks import images, network

torch.set_num_threads(2)
fast = optimize_for_inference(network(deconvs=(DeconvSettings(64, num_blocks=1),)))
with torch.inference_mode():
    expected = fast(images())[1].heatmaps
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if torch.allclose(fast(images())[1].heatmaps, expected, atol=1e-5) else 1)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_networks_work_in_forked_processes() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_have_the_layout_that_is_asked_for(channels_last: bool) -> None:
    """Looked at on a device without fused convolutions, which keep their weights elsewhere."""
    fast = optimize_for_inference(network().to("meta"), channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    filters = [module.weight for module in fast.modules() if isinstance(module, nn.Conv2d)]
    wide = [weight for weight in filters if weight.shape[1] > 1 and weight.shape[2] > 1]
    assert wide and all(weight.is_contiguous(memory_format=layout) for weight in wide)


class Volumes(Custom):
    """Has weights of five dimensions."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, *conv_norm(channels, padding=1), nn.ReLU())
        self.volumes = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, features: Tensor) -> list[StageOutput]:
        return super().forward(self.volumes(features.unsqueeze(1)).squeeze(1))


@torch.inference_mode()
def test_weights_of_five_dimensions_keep_their_layout(caplog: pytest.LogCaptureFixture) -> None:
    model = with_head(Volumes(C))
    fast = optimize_for_inference(model)
    assert_same(fast(images()), model(images()))
    assert verified(fast, model, (64, 96)) is fast and not caplog.records


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [fold_batch_norms, optimize_for_inference])
def test_a_copy_takes_the_weights_of_the_day_as_a_new_one_has_them(
    make: Callable[[PoseNetwork], PoseNetwork], dtype: torch.dtype
) -> None:
    """To the bit, in the same tensors, also after the copy was used."""
    model = network()
    fast = make(model).to(dtype)
    places = [parameter.data_ptr() for parameter in fast.parameters()]
    with torch.inference_mode():
        fast(images().to(dtype))
        before = [value.clone() for value in model.state_dict().values()]
        randomized(model, seed=5)
        assert not all(map(torch.equal, model.state_dict().values(), before))
        assert refresh(fast, model)
        want = make(model).to(dtype)(images().to(dtype))
        got = fast(images().to(dtype))
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one.heatmaps, other.heatmaps)
        assert one.tags is None or torch.equal(one.tags, cast(Tensor, other.tags))
    assert [parameter.data_ptr() for parameter in fast.parameters()] == places


def test_a_copy_cannot_take_the_weights_of_another_network() -> None:
    fast = optimize_for_inference(network())
    other = network()
    other.backbone.conv1 = nn.Conv2d(3, 5, 3)  # type: ignore[assignment]
    assert not refresh(fast, other)
    assert not refresh(network(), network())


@pytest.fixture
def unknown_cudnn() -> Iterator[None]:
    """cuDNN is tried again in the test, and after it."""
    can_fuse_by_cudnn.cache_clear()
    yield
    can_fuse_by_cudnn.cache_clear()


def outputs_on_device(model: PoseNetwork, cudnn: bool) -> tuple[list[StageOutput], Counter[str]]:
    """What a pretended GPU computes for two images, and the operations that it did."""
    with pretended() as device:
        fast = optimize_for_inference(copy.deepcopy(model).to(DEVICE), cudnn=cudnn)
        device.counts.by_name.clear()
        with torch.inference_mode():
            outputs = fast(images().to(DEVICE))
        names = Counter(device.counts.by_name)
        return [stage.map(lambda maps: maps.to("cpu")) for stage in outputs], names


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_cudnn_adds_shortcuts_and_applies_relus(variant: str, unknown_cudnn: None) -> None:
    model = network(variant)
    outputs, names = outputs_on_device(model, cudnn=True)
    assert_same(outputs, model(images()))
    plain, others = outputs_on_device(model, cudnn=False)
    assert_same(plain, model(images()))
    assert names["cudnn_convolution_relu"] and names["cudnn_convolution_add_relu"]
    assert not others["cudnn_convolution_relu"] and names.total() < 0.7 * others.total()


@pytest.mark.parametrize(
    ("convolution", "why"),
    [
        (MagicMock(side_effect=RuntimeError("no engine\nat all")), "no engine"),
        (lambda *given: torch.conv2d(given[0], *given[1:]), "it differs from PyTorch's by up to "),
    ],
)
@torch.no_grad()
def test_where_cudnn_cannot_pytorch_does(
    convolution: Callable[..., Any],
    why: str,
    unknown_cudnn: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(pretend_device.ON_CPU, "cudnn_convolution_relu", convolution)
    model = network()
    outputs, names = outputs_on_device(model, cudnn=True)
    assert_same(outputs, model(images()))
    assert not names["cudnn_convolution_add_relu"]
    [record] = caplog.records
    said = "TEST.CUDNN_FUSE: cuDNN's fused convolutions are not used: "
    assert record.getMessage().startswith(said + why) and "\n" not in record.getMessage()


@torch.no_grad()
def test_a_copy_that_was_made_on_the_cpu_leaves_cudnn_alone() -> None:
    model = network()
    fast = optimize_for_inference(model)
    with pretended() as device:
        with torch.inference_mode():
            fast.to(DEVICE)(images().to(DEVICE))
        names = device.counts.by_name
    assert names["convolution"] and not names["cudnn_convolution_relu"]
