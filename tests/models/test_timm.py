from __future__ import annotations

import importlib
import pickle
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from swahr.acceleration.fuse import fold_batch_norms, optimize_for_inference
from swahr.config import load_config
from swahr.models.backbones.efficientnet_names import timm_name
from swahr.models.backbones.timm import TimmBackbone, _name_in_body
from swahr.models.build import build_model
from swahr.models.flops import count_macs
from swahr.models.network import ModelError, PoseNetwork
from swahr.models.weights import load_pretrained, load_weights, published_state
from tests.models.tiny_networks import EXPERIMENTS, images, network, randomized

EXPERIMENT = EXPERIMENTS / "synthetic/resnet18_192_cpu.yaml"


def built(*opts: str) -> PoseNetwork:
    pytest.importorskip("timm")
    return build_model(load_config(EXPERIMENT, opts))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_maps_of_the_experiment() -> None:
    model = built()
    assert model.strides == (4, 2) and model.size_divisor == 32 and model.backbone.channels == 32
    first, second = model.eval()(images(1, 64, 96))
    assert first.heatmaps.shape == (1, 17, 16, 24) and second.heatmaps.shape == (1, 17, 32, 48)
    with pytest.raises(ModelError, match="^images are 96 x 48 px; .* multiples of 32$"):
        model(images(1, 48, 96))


def test_strides_that_networks_have() -> None:
    """Some begin at stride 2, some at 4; some end before 32."""
    pytest.importorskip("timm")
    for name in ("resnet10t", "convnext_atto", "mobilenetv3_small_050"):
        backbone = TimmBackbone(name, 8)
        features = backbone(images(1, 64, 32))
        assert features.shape == (1, 8, 16, 8) and backbone.size_divisor == 32


def test_every_parameter_learns() -> None:
    """DistributedDataParallel need not look for idle ones: is_idle speaks for the whole network."""
    model = built("MODEL.INIT_WEIGHTS", "False").train()
    outputs = model(images(2, 64, 64))
    maps = [part for stage in outputs for part in (stage.scales, stage.heatmaps, stage.tags)]
    torch.stack([part.square().mean() for part in maps if part is not None]).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_initialisation_is_that_of_timm() -> None:
    """Only the head is initialised as HigherHRNet's."""
    model = built()
    assert model.backbone.body.conv1.weight.std() > 0.01
    assert model.head.final_layers[0].weight.std() < 0.002


def test_files(tmp_path: Path) -> None:
    source = randomized(built(), seed=1)
    path = tmp_path / "ours.pth"
    torch.save(published_state(source), path)
    model = built()
    load_weights(model, path)
    assert same(published_state(model), published_state(source))


def test_pretrained_from_a_file_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    published = timm.create_model("resnet18").state_dict()  # with a classifier
    path = tmp_path / "resnet18.pth"
    torch.save(published, path)
    model = built()
    report = load_pretrained(model, path)
    assert torch.equal(
        model.backbone.body.layer4[1].conv2.weight, published["layer4.1.conv2.weight"]
    )
    assert (report.taken, report.unasked) == (len(published) - 2, 2)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "repvgg_a0"])
def test_all_of_the_body_is_in_a_file_of_timm(tmp_path: Path, name: str) -> None:
    """Names of the body and of the whole network differ where timm flattens sequences of layers."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        published = timm.create_model(name).state_dict()
    numbered = {
        name: torch.full(tensor.shape, index, dtype=tensor.dtype, device="cpu")
        for index, (name, tensor) in enumerate(published.items())
    }
    path = tmp_path / "file.pth"
    torch.save(numbered, path)
    backbone = TimmBackbone(name, 8)
    report = load_pretrained(PoseNetwork(backbone, network().head), path)
    body = backbone.body.state_dict()
    assert report.taken == len(body) and report.unasked == len(published) - len(body)
    found = [int(tensor.flatten()[0]) for tensor in body.values()]
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("children", "name", "expected"),
    [
        (["stem", "stages_0"], "stem.conv.weight", "stem.conv.weight"),
        (["stem", "stages_0"], "stages.0.1.weight", "stages_0.1.weight"),
        (["stem", "stages_0"], "stages.2.1.weight", "stages.2.1.weight"),
        (["stem", "stages_0"], "stages_0.1.weight", "stages_0.1.weight"),
        (["repeat", "repeat_1"], "repeat.1.conv.weight", "repeat.1.conv.weight"),
        (["model"], "stages.0.1.weight", "model.stages.0.1.weight"),
        (["model"], "pos_embed", "model.pos_embed"),
        (["model"], "model.pos_embed", "model.pos_embed"),
    ],
)
def test_names_of_the_body(children: list[str], name: str, expected: str) -> None:
    body = nn.ModuleDict({child: nn.Identity() for child in children})
    assert _name_in_body(body, name) == expected


def test_pretrained_from_the_backbone_of_another_network(tmp_path: Path) -> None:
    source = randomized(built(), seed=1).backbone.state_dict()
    path = tmp_path / "backbone.pth"
    torch.save(source, path)
    model = built()
    assert load_pretrained(model, path).taken == len(source)
    assert same(model.backbone.state_dict(), source)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.bias", "bn1.bias"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._se_reduce.bias", "blocks.0.0.se.conv_reduce.bias"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.running_var", "blocks.0.0.bn2.running_var"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._bn0.weight", "blocks.1.1.bn1.weight"),
        ("_blocks.2._bn1.weight", "blocks.1.1.bn2.weight"),
        ("_blocks.3._bn2.weight", "blocks.2.0.bn3.weight"),
        ("_blocks.3._project_conv.weight", "blocks.2.0.conv_pwl.weight"),
        ("_bn1.weight", "bn2.weight"),
        ("_fc.bias", "classifier.bias"),
        # No names of efficientnet_pytorch:
        ("blocks.1.0.conv_pw.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.0._expand_conv.weight", "_blocks.0._expand_conv.weight"),
        ("_blocks.4._bn0.weight", "_blocks.4._bn0.weight"),
    ],
)
def test_names_of_efficientnet_pytorch(name: str, expected: str) -> None:
    assert timm_name(name, [1, 2, 1]) == expected


def test_pretrained_from_a_file_of_efficientnet_pytorch(tmp_path: Path) -> None:
    model = built("MODEL.BACKBONE", "timm/tf_efficientnet_lite0")
    body = model.backbone.body
    weights = {
        "_conv_stem.weight": body.conv_stem.weight,
        "_blocks.4._expand_conv.weight": body.blocks[2][1].conv_pw.weight,
        "_fc.bias": torch.zeros(1000),
    }
    path = tmp_path / "lite0.pth"
    torch.save({name: torch.full_like(tensor, 0.5) for name, tensor in weights.items()}, path)
    report = load_pretrained(model, path)
    assert (report.taken, report.unasked) == (2, 1)
    assert (body.conv_stem.weight == 0.5).all() and (body.blocks[2][1].conv_pw.weight == 0.5).all()
    assert not (body.blocks[2][0].conv_pw.weight == 0.5).any()


def test_gradients_of_depthwise_convolutions_are_those_of_pytorch() -> None:
    """Those that pad as TensorFlow does, too. Every layer is ours, or none."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = TimmBackbone("tf_efficientnet_lite0", 8).double()
    plain = TimmBackbone("tf_efficientnet_lite0", 8).double()
    plain.load_state_dict(ours.state_dict())
    patched = [layer for layer in plain.modules() if vars(layer).pop("forward", None)]
    assert len(patched) == 17  # the stem, and one in each block
    batch = images(2, 64, 96).double()
    factor = torch.randn(2, 8, 16, 24, dtype=torch.float64)
    for backbone in (ours, plain):
        backbone.eval()(batch).backward(factor)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-9)


def test_copies_compute_with_their_own_weights() -> None:
    pytest.importorskip("timm")
    model = TimmBackbone("tf_efficientnet_lite0", 8).eval()
    batch = images(1, 64, 96)
    expected = model(batch)
    for copy in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copy(batch), expected, rtol=0, atol=0)
        nn.init.zeros_(copy.body.conv_stem.weight)
        assert not copy.body.conv_stem(batch).any() and model.body.conv_stem(batch).any()


def test_padding_is_not_computed_from_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are multiples of every stride. Exporting would not end if padding depended on them."""
    pytest.importorskip("timm")
    backbone = TimmBackbone("tf_efficientnet_lite0", 8)
    padding = importlib.import_module("timm.layers.conv2d_same")
    monkeypatch.setattr(padding, "pad_same", None)
    assert backbone(images(2, 64, 96)).shape == (2, 8, 16, 24)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_fused_copies_compute_the_same(name: str) -> None:
    model = randomized(built("MODEL.BACKBONE", f"timm/{name}"))
    batch = images(1, 64, 96)
    for fast in (fold_batch_norms(model), optimize_for_inference(model)):
        for output, expected in zip(fast(batch), model(batch), strict=True):
            limit = 1e-4 * float(expected.heatmaps.abs().max())
            torch.testing.assert_close(output.heatmaps, expected.heatmaps, rtol=0, atol=limit)


def test_size_is_counted_without_weights() -> None:
    pytest.importorskip("timm")
    with torch.device("meta"):
        model = build_model(load_config(EXPERIMENT))
    assert count_macs(model, 64)[1] > 1e8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"^timm has no network 'resnet19'; the nearest are .*resnet18"),
        ("xqzj", r"^timm has no network 'xqzj'$"),
        ("", r"^timm has no network ''$"),
        ("vit_tiny_patch16_224", r"features of strides \[16, 16, 16\]; a backbone needs conv"),
        ("swin_tiny_patch4_window7_224", r"a backbone needs convolutional features from stride 4"),
    ],
)
def test_networks_that_are_no_backbones(name: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=message) as error:
        TimmBackbone(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("package", ["timm", "torchvision.ops"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"install it with: pip install 'swahr\[timm\]'$"):
        TimmBackbone("resnet18")


def test_other_networks_do_not_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert network().size_divisor == 32
