"""Settings that change nothing because of another one, and the line of the log that names them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from swahr.config import SCHEMA, load, load_config
from swahr.config.load import OWN_SKELETON
from swahr.config.rules import PARTS
from swahr.config.schema import default_values, unflatten

MAIN = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"


def said(caplog: pytest.LogCaptureFixture, *opts: str, file: str = MAIN) -> str:
    """What the log says of settings without effect; '' if nothing."""
    caplog.clear()
    load_config(file, opts)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= 1 and all(line.startswith("no effect: ") for line in lines)
    return lines[0].removeprefix("no effect: ") if lines else ""


NO_ASSOCIATIVE = "LOSS.TERMS=['heatmap', 'scale']"
NO_HEATMAP = "LOSS.TERMS=['scale', 'associative']"
NO_AFFINE = "DATASET.TRANSFORMS=['flip']"
PYTORCH = ("TEST.FUSE=False", "TEST.COMPILE=True", "TEST.CUDA_GRAPHS=True")
CUDNN = ("CUDNN.BENCHMARK=False", "CUDNN.DETERMINISTIC=True", "CUDNN.ENABLED=False")
BF16 = ("AMP.ENABLED=True", "AMP.DTYPE=auto")
FP16 = ("FP16.ENABLED=True", "FP16.STATIC_LOSS_SCALE=128")
ONNX = "TEST.MODEL_FILE=x.onnx"
ON_EXPORTED = "(on TEST.MODEL_FILE, which is an exported network)"


@pytest.mark.parametrize(
    ("opts", "cause", "idle"),
    [
        (
            ["TEST.ADJUST=False"],
            "TEST.SUBPIXEL=True",
            "TEST.ADJUST (only with TEST.SUBPIXEL False)",
        ),
        (
            ["DATASET.SIGMA=3"],
            "DATASET.SCALE_AWARE_SIGMA=True",
            "DATASET.SIGMA (only with DATASET.SCALE_AWARE_SIGMA False)",
        ),
        (
            ["TEST.CUDNN_FUSE=True"],
            "TEST.COMPILE=True",
            "TEST.CUDNN_FUSE (only with TEST.COMPILE False)",
        ),
        (
            ["DATASET.FLIP=0.3"],
            "DATASET.TRANSFORMS=['affine']",
            "DATASET.FLIP (only with DATASET.TRANSFORMS flip)",
        ),
        (
            [
                "DATASET.MAX_ROTATION=5",
                "DATASET.MIN_SCALE=0.9",
                "DATASET.MAX_SCALE=1.1",
                "DATASET.SCALE_TYPE=long",
                "DATASET.MAX_TRANSLATE=5",
            ],
            NO_AFFINE,
            "DATASET.MAX_ROTATION, DATASET.MIN_SCALE, DATASET.MAX_SCALE, DATASET.SCALE_TYPE, "
            "DATASET.MAX_TRANSLATE (only with DATASET.TRANSFORMS affine)",
        ),
        (
            ["LOSS.AE_LOSS_TYPE=exp", "LOSS.PUSH_LOSS_FACTOR=[1]", "LOSS.PULL_LOSS_FACTOR=[1, 2]"],
            NO_ASSOCIATIVE,
            "LOSS.AE_LOSS_TYPE, LOSS.PUSH_LOSS_FACTOR, LOSS.PULL_LOSS_FACTOR "
            "(only with LOSS.TERMS associative)",
        ),
        (
            ["LOSS.AE_LOSS_TYPE=exp"],
            "LOSS.PUSH_LOSS_FACTOR=[0, 1]",  # stage 1 has no tags
            "LOSS.AE_LOSS_TYPE (only with LOSS.PUSH_LOSS_FACTOR above 0)",
        ),
        (
            ["LOSS.HEATMAPS_LOSS_FACTOR=[2]", "LOSS.GAMMA=0.1"],
            NO_HEATMAP,
            "LOSS.HEATMAPS_LOSS_FACTOR, LOSS.GAMMA (only with LOSS.TERMS heatmap)",
        ),
        (
            ["LOSS.WEIGHT_ADAPTIVE=False"],
            NO_HEATMAP,
            "LOSS.WEIGHT_ADAPTIVE (only with LOSS.TERMS heatmap)",
        ),
        (
            ["LOSS.GAMMA=0.1"],
            "LOSS.HEATMAPS_LOSS_FACTOR=[0]",
            "LOSS.GAMMA (only with LOSS.HEATMAPS_LOSS_FACTOR above 0)",
        ),
        (
            ["LOSS.WEIGHT_ADAPTIVE=False"],
            "LOSS.HEATMAPS_LOSS_FACTOR=[0]",
            "LOSS.WEIGHT_ADAPTIVE (only with LOSS.HEATMAPS_LOSS_FACTOR above 0)",
        ),
        (
            ["LOSS.SCALE_LOSS_FACTOR=2"],
            "LOSS.TERMS=['heatmap', 'associative']",
            "LOSS.SCALE_LOSS_FACTOR (only with LOSS.TERMS scale)",
        ),
        (
            ["TRAIN.PATIENCE=3"],
            "TRAIN.VAL_INTERVAL=0",
            "TRAIN.PATIENCE (only with TRAIN.VAL_INTERVAL above 0)",
        ),
        (
            ["DEBUG.SAVE_HEATMAPS_PRED=False", "DEBUG.SAVE_TAGMAPS_PRED=False"],
            "DEBUG.DEBUG=False",
            "DEBUG.SAVE_HEATMAPS_PRED, DEBUG.SAVE_TAGMAPS_PRED (only with DEBUG.DEBUG)",
        ),
        (
            ["DEBUG.SAVE_HEATMAPS_PRED=False", "DEBUG.SAVE_TAGMAPS_PRED=False"],
            "DEBUG.SAVE_HEATMAPS_GT=False",
            "DEBUG.SAVE_TAGMAPS_PRED (only with DEBUG.SAVE_HEATMAPS_GT or "
            "DEBUG.SAVE_HEATMAPS_PRED)",
        ),
        (list(PYTORCH), ONNX, f"TEST.FUSE, TEST.COMPILE, TEST.CUDA_GRAPHS {ON_EXPORTED}"),
        (["TEST.CUDNN_FUSE=True"], ONNX, f"TEST.CUDNN_FUSE {ON_EXPORTED}"),
        (
            list(CUDNN),
            ONNX,
            f"CUDNN.BENCHMARK, CUDNN.DETERMINISTIC, CUDNN.ENABLED {ON_EXPORTED}",
        ),
        (list(BF16), ONNX, f"AMP.ENABLED, AMP.DTYPE {ON_EXPORTED}"),
        (list(FP16), ONNX, f"FP16.ENABLED, FP16.STATIC_LOSS_SCALE {ON_EXPORTED}"),
        (
            ["TEST.ENGINE=openvino"],
            "TEST.MODEL_FILE=x.pth",
            "TEST.ENGINE (on TEST.MODEL_FILE, which is not an exported network)",
        ),
    ],
)
def test_one_line_for_each_rule(
    opts: list[str], cause: str, idle: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its cause there is no line."""
    assert said(caplog, *opts) == ""
    assert said(caplog, *opts, cause) == idle


def test_one_panel_has_target_and_predicted_heatmaps(caplog: pytest.LogCaptureFixture) -> None:
    """Scale maps are drawn with SAVE_HEATMAPS_PRED only."""
    targets = "DEBUG.SAVE_HEATMAPS_GT=False"
    predicted = "DEBUG.SAVE_HEATMAPS_PRED=False"
    plain = "MODEL.SCALE_HEADS=False"
    idle = "DEBUG.SAVE_HEATMAPS_GT (DEBUG.SAVE_HEATMAPS_PRED draws them too)"
    assert said(caplog, targets) == said(caplog, targets, plain) == idle
    assert said(caplog, targets, predicted, plain) == said(caplog, predicted) == ""
    idle = "DEBUG.SAVE_HEATMAPS_PRED (DEBUG.SAVE_HEATMAPS_GT draws them too)"
    assert said(caplog, predicted, plain) == idle
    assert said(caplog, predicted, plain, "MODEL.HEAD=mine") == ""


def test_the_first_reason_of_a_key_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    opts = ("TEST.CUDNN_FUSE=True", "TEST.FUSE=False", "TEST.COMPILE=True")
    assert said(caplog, *opts) == "TEST.CUDNN_FUSE (only with TEST.FUSE)"


def test_defaults_of_each_stage_are_not_said(caplog: pytest.LogCaptureFixture) -> None:
    """The file lists [0.001], the default, which stands for [0.001, 0.001]."""
    assert said(caplog, NO_ASSOCIATIVE, "LOSS.AE_LOSS_TYPE=max") == ""
    factors = ("LOSS.PUSH_LOSS_FACTOR=[0.001, 0.001]", "LOSS.PULL_LOSS_FACTOR=[0.001, 0.002]")
    idle = said(caplog, NO_ASSOCIATIVE, "LOSS.AE_LOSS_TYPE=max", *factors)
    assert idle == "LOSS.PULL_LOSS_FACTOR (only with LOSS.TERMS associative)"


def test_openvino_reads_mixed_precision(caplog: pytest.LogCaptureFixture) -> None:
    opts = (ONNX, "TEST.ENGINE=openvino", *BF16, "CUDNN.BENCHMARK=False")
    assert said(caplog, *opts) == f"CUDNN.BENCHMARK {ON_EXPORTED}"
    assert said(caplog, ONNX, "TEST.ENGINE=openvino", *FP16) == ""


def test_weights_that_are_given_elsewhere_may_need_an_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TEST.MODEL_FILE '' may stand for --weights x.onnx."""
    assert said(caplog, "TEST.ENGINE=openvino") == ""


def test_no_deconvolutions_no_settings_of_them(caplog: pytest.LogCaptureFixture) -> None:
    file = MAIN.replace(".yaml", "_hrnet_bottomup.yaml")  # whose lists are empty
    assert said(caplog, file=file) == ""
    opts = [f"MODEL.EXTRA.DECONV.{name}" for name in ("NUM_CHANNELS=[48]", "KERNEL_SIZE=[2]")]
    idle = "MODEL.EXTRA.DECONV.NUM_CHANNELS, MODEL.EXTRA.DECONV.KERNEL_SIZE"
    assert said(caplog, *opts, file=file) == f"{idle} (only with NUM_DECONVS above 0)"


OWN = {
    key: f"['mine', '{known[0]}']" if isinstance(SCHEMA[key].default, list) else "mine"
    for key, known in PARTS.items()
}


@pytest.mark.parametrize("key", PARTS)
def test_a_part_of_ones_own_may_read_any_setting(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All but those that no part reads."""
    opts = ["DATASET.SCALE_AWARE_SIGMA=True", "TRAIN.WD=0.1", "TRAIN.CHECKPOINT=x", "GPUS=[1]"]
    opts += ["TEST.MODEL_FILE=x.pth", "TEST.ENGINE=openvino", "DEBUG.SAVE_HEATMAPS_GT=False"]
    opts += ["AMP.DTYPE=auto"]
    first = (
        "GPUS (every visible GPU is used, or as many as --gpus says); "
        "AMP.DTYPE (only with AMP.ENABLED)"
    )
    others = (
        "TRAIN.CHECKPOINT (only with TRAIN.RESUME); "
        "DEBUG.SAVE_HEATMAPS_GT (DEBUG.SAVE_HEATMAPS_PRED draws them too); "
        "TEST.ENGINE (on TEST.MODEL_FILE, which is not an exported network)"
    )
    assert said(caplog, *opts) == (
        f"{first}; DATASET.SIGMA (only with DATASET.SCALE_AWARE_SIGMA False); "
        f"TRAIN.WD (only with TRAIN.OPTIMIZER sgd); {others}"
    )
    assert said(caplog, *opts, f"{key}={OWN[key]}") == f"{first}; {others}"


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("MODEL.BACKBONE", "swahr.models.build.BACKBONES"),
        ("MODEL.HEAD", "swahr.models.build.HEADS"),
        ("LOSS.TERMS", "swahr.losses.criterion.LOSSES"),
        ("DATASET.TRANSFORMS", "swahr.data.transforms.TRANSFORMS"),
        ("TRAIN.LR_SCHEDULE", "swahr.engine.schedule.SCHEDULES"),
        ("TRAIN.OPTIMIZER", "swahr.engine.schedule.OPTIMIZERS"),
        ("TRAIN.HOOKS", "swahr.engine.hooks.HOOKS"),
        ("TEST.DECODER", "swahr.codec.decode.DECODERS"),
        ("TEST.ENGINE", "swahr.inference.exported_network.ENGINES"),
    ],
)
def test_the_parts_of_the_project_are_those_it_registers(key: str, registry: str) -> None:
    """Other tests may register parts too."""
    module, _, name = registry.rpartition(".")
    parts = getattr(importlib.import_module(module), name)
    own = {part for part, build in parts.items() if build.__module__.startswith("swahr.")}
    assert own == set(PARTS[key])


def test_parts_of_the_project_are_known_by_their_whole_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sigma = "DATASET.SIGMA (only with DATASET.SCALE_AWARE_SIGMA False)"
    for part in ("MODEL.BACKBONE=timm/resnet18", "TRAIN.HOOKS=['share_cpu']", "TRAIN.HOOKS=['']"):
        assert said(caplog, "DATASET.SCALE_AWARE_SIGMA=True", part) == sigma
    assert said(caplog, "DATASET.SCALE_AWARE_SIGMA=True", "LOSS.TERMS=['heatmap/mine']") == ""


def test_an_exported_network_says_nothing_of_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`swahr export` writes TEST.FUSE False into the file, and files of before have AMP.*."""
    held = {"LOSS.NUM_STAGES": 2, "DATASET.SKELETON": "coco", "TEST.FUSE": False}
    held |= {"AMP.ENABLED": True, "FP16.STATIC_LOSS_SCALE": 128.0, "CUDNN.BENCHMARK": False}
    settings = yaml.safe_load(unflatten(default_values() | held).dump())
    described = SimpleNamespace(settings=yaml.safe_dump(settings), skeleton="")
    monkeypatch.setattr(load, "describe_exported", lambda file: described)
    file = tmp_path / "x.onnx"
    file.touch()
    assert OWN_SKELETON != "coco" and said(caplog, file=str(file)) == ""
    assert said(caplog, "TEST.COMPILE=True", file=str(file)) == f"TEST.COMPILE {ON_EXPORTED}"
