from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from swahr.engine.model_files import published_settings
from swahr.models import build
from swahr.models.backbones.hrnet import HRNet, StageSettings
from swahr.models.build import BACKBONES, HEADS, amp_dtype, build_model
from swahr.models.network import Backbone, Head, ModelError, StageOutput, use_channels_last
from swahr.models.weights import CheckpointError, load_weights, published_state
from tests.models.tiny_networks import CROWD_POSE, W32, W48, published


@pytest.mark.parametrize(
    ("name", "key"),
    [(W32, "coco_w32_512"), (W48, "coco_w48_640"), (CROWD_POSE, "crowdpose_w48_640")],
)
def test_published_architectures(shared: Path, name: str, key: str) -> None:
    expected = json.loads((shared / "golden/architecture.json").read_text())[key]
    with torch.device("meta"):
        model = build_model(published(name))
    assert [
        [name, list(tensor.shape)] for name, tensor in published_state(model).items()
    ] == expected["state_dict"]


def test_settings_reach_the_network() -> None:
    deconv = ("MODEL.EXTRA.DECONV.CAT_OUTPUT", "[False]", "MODEL.EXTRA.DECONV.KERNEL_SIZE", "[2]")
    heads = ("MODEL.TAG_PER_JOINT", "False", "MODEL.EXTRA.FINAL_CONV_KERNEL", "3")
    with torch.device("meta"):
        model = build_model(published(W32, *heads, *deconv))
    shapes = {name: tuple(tensor.shape) for name, tensor in published_state(model).items()}
    assert shapes["final_layers.0.weight"] == (18, 32, 3, 3)
    assert shapes["deconv_layers.0.0.0.weight"] == (32, 32, 2, 2)


def test_initial_weights_only_if_asked_for() -> None:
    small = (
        "MODEL.EXTRA.STAGE2.NUM_CHANNELS",
        "[4, 4]",
        "MODEL.EXTRA.STAGE3.NUM_CHANNELS",
        "[4, 4, 4]",
        "MODEL.EXTRA.STAGE4.NUM_CHANNELS",
        "[4, 4, 4, 4]",
    )

    def spread(*opts: str) -> float:
        model = build_model(published(W32, *small, *opts))
        return float(published_state(model)["conv2.weight"].std())

    assert spread() < 0.002 and spread("MODEL.INIT_WEIGHTS", "False") > 0.01


class Blur(Backbone):
    """Features are pixels, averaged over 2 x 2."""

    channels = 3
    stride = 2
    size_divisor = 2

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 2)


class Brightness(Head):
    """One heatmap at the features' resolution."""

    upsampling = (1,)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> list[StageOutput]:
        return [StageOutput(None, self.project(features), None)]


def test_a_function_reaches_every_map() -> None:
    one = torch.ones(1)
    doubled = StageOutput(one, 2 * one, 3 * one, {"mine": 4 * one}).map(lambda maps: 2 * maps)
    assert doubled == (2 * one, 4 * one, 6 * one, {"mine": 8 * one})
    assert StageOutput(None, one, None).map(lambda maps: maps) == (None, one, None, None)


def with_parts(backbone: str, head: str) -> CfgNode:
    cfg = published(W32).clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE = backbone
    cfg.MODEL.HEAD = head
    return cfg


def test_parts_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "blur", lambda cfg: Blur())
    monkeypatch.setitem(HEADS, "brightness", lambda cfg, backbone: Brightness(backbone.channels))
    model = build_model(with_parts("blur/strong", "brightness"))
    assert model.strides == (2,) and model.size_divisor == 2
    assert model(torch.zeros(1, 3, 6, 4))[0].heatmaps.shape == (1, 1, 3, 2)
    assert list(published_state(model)) == ["head.project.weight", "head.project.bias"]


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        (Blur, "stride", "MODEL.BACKBONE blur: has no whole number 'stride', see Backbone"),
        (Brightness, "upsampling", "MODEL.HEAD brightness: has no tuple 'upsampling'; see Head"),
    ],
)
def test_parts_that_do_not_say_their_sizes(
    monkeypatch: pytest.MonkeyPatch, part: type, name: str, message: str
) -> None:
    monkeypatch.setitem(BACKBONES, "blur", lambda cfg: Blur())
    monkeypatch.setitem(HEADS, "brightness", lambda cfg, backbone: Brightness(backbone.channels))
    monkeypatch.delattr(part, name)
    with pytest.raises(ModelError) as error:
        build_model(with_parts("blur", "brightness"))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("backbone", "head", "message"),
    [
        ("vgg", "higher_hrnet", "MODEL.BACKBONE is 'vgg'; it is one of hrnet, timm; "),
        ("hrnet", "mask", "MODEL.HEAD is 'mask'; it is one of higher_hrnet; "),
    ],
)
def test_unknown_parts(backbone: str, head: str, message: str) -> None:
    with pytest.raises(ValueError) as error, torch.device("meta"):
        build_model(with_parts(backbone, head))
    assert str(error.value) == message + "a module of your own is named with --import"


@pytest.mark.parametrize(
    "opts, units, dtype",
    [
        ((), True, None),
        (("AMP.ENABLED", "True"), False, torch.bfloat16),
        (("AMP.ENABLED", "True", "AMP.DTYPE", "fp16"), True, torch.float16),
        (("AMP.ENABLED", "True", "AMP.DTYPE", "auto"), True, torch.bfloat16),
        (("AMP.ENABLED", "True", "AMP.DTYPE", "auto"), False, None),
    ],
)
def test_the_type_of_mixed_precision(
    monkeypatch: pytest.MonkeyPatch, opts: tuple[str, ...], units: bool, dtype: torch.dtype | None
) -> None:
    """auto is bf16 only where the device has units for it."""
    monkeypatch.setattr(build, "has_bf16_units", lambda device: units)
    assert amp_dtype(published(W32, *opts), torch.device("cpu")) == dtype


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_emulated_types_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    build._warn_of_emulation.cache_clear()
    cfg = published(W32, "AMP.ENABLED", "True", "AMP.DTYPE", name)
    question = {"bf16": "_is_avx512_bf16_supported", "fp16": "_is_amx_fp16_supported"}[name]
    for each in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_amx_fp16_supported"):
        monkeypatch.setattr(torch.cpu, each, lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, question, lambda: True)
    amp_dtype(cfg)
    assert not caplog.records
    monkeypatch.setattr(torch.cpu, question, lambda: False)
    amp_dtype(cfg)
    amp_dtype(cfg)
    [message] = caplog.messages
    assert message.startswith(f"AMP.DTYPE {name}: this CPU has no units for it and emulates it")


def test_a_gpu_without_units_is_called_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every GPU has units for fp16."""
    build._warn_of_emulation.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(build, "_cpu_has", lambda *questions: False)
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        assert amp_dtype(published(W32, "AMP.ENABLED=True", f"AMP.DTYPE={name}"), "cuda") == dtype
    [message] = caplog.messages
    assert message.startswith("AMP.DTYPE bf16: this GPU has no units for it")


@pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_bf16_units_of_a_cpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, question, lambda: False, raising=False)
    assert not build.has_bf16_units(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, name, lambda: True)
    assert build.has_bf16_units(torch.device("cpu"))


@pytest.mark.parametrize("capability, units", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_units_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], units: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert build.has_bf16_units(torch.device("cuda")) is units


def test_a_shorter_stem(tmp_path: Path) -> None:
    """Weights of two blocks name the setting that fits them."""
    widths = {2: "[4, 8]", 3: "[4, 8, 16]", 4: "[4, 8, 16, 32]"}
    narrow = [
        part
        for stage, width in widths.items()
        for part in (f"MODEL.EXTRA.STAGE{stage}.NUM_CHANNELS", width)
    ]
    short = build_model(published(W32, *narrow, "MODEL.EXTRA.STEM_BLOCKS", "2"))
    assert len(short.backbone.layer1) == 2  # type: ignore[arg-type]
    torch.save(published_state(short), tmp_path / "short.pth")
    assert published_settings(tmp_path / "short.pth")["MODEL.EXTRA.STEM_BLOCKS"] == 2
    with pytest.raises(CheckpointError, match=r"would fit: MODEL.EXTRA.STEM_BLOCKS 2$"):
        load_weights(build_model(published(W32, *narrow)), tmp_path / "short.pth")
    with pytest.raises(ModelError, match="^stem_blocks is 0; it must be at least 1$"):
        HRNet(stages=[StageSettings(1, (1,) * n, (4,) * n) for n in (2, 3, 4)], stem_blocks=0)


def test_only_weights_of_four_dimensions_get_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv3d(4, 4, 3), nn.Linear(4, 4))
    weights = [layer.weight.detach().clone() for layer in model]
    use_channels_last(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[1].weight.is_contiguous() and model[2].weight.is_contiguous()
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(model, weights))
