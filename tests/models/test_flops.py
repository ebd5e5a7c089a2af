from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from swahr.commands import flops
from swahr.config import ConfigError
from swahr.models.build import build_model
from swahr.models.flops import count_macs, count_parameters
from tests.models.tiny_networks import EXPERIMENTS, PLAIN, W32, W48, published

BOTTOM_UP = (
    *PLAIN,
    "MODEL.EXTRA.DECONV.NUM_DECONVS",
    "0",
    "LOSS.NUM_STAGES",
    "1",
    "DATASET.OUTPUT_SIZE",
    "[128]",
    "LOSS.WITH_AE_LOSS",
    "[True]",
    "LOSS.WITH_HEATMAPS_LOSS",
    "[True]",
    "LOSS.HEATMAPS_LOSS_FACTOR",
    "[1.0]",
    "LOSS.PUSH_LOSS_FACTOR",
    "[0.001]",
    "LOSS.PULL_LOSS_FACTOR",
    "[0.001]",
    "TEST.WITH_HEATMAPS",
    "[True]",
    "TEST.WITH_AE",
    "[True]",
)


@pytest.mark.parametrize(
    ("name", "opts", "parameters", "rule", "exact"),
    [
        (W32, BOTTOM_UP, 28_536_674, 40_782_266_368, 40_782_266_368),
        (W32, PLAIN, 28_645_331, 47_864_348_672, 46_203_404_288),
        (W32, (), 28_649_309, 48_021_716_992, 46_360_772_608),
        (W48, PLAIN, 63_827_139, 154_305_331_200, 149_468_774_400),
        (W48, (), 63_831_661, 154_586_035_200, 149_749_478_400),
    ],
)
def test_published_figures(
    name: str, opts: tuple[str, ...], parameters: int, rule: int, exact: int
) -> None:
    cfg = published(name, *opts)
    with torch.device("meta"):
        model = build_model(cfg)
    assert count_parameters(model) == parameters
    assert count_macs(model, cfg.DATASET.INPUT_SIZE) == (rule, exact)


def test_by_hand() -> None:
    """3 -> 4 channels by 3x3/2 on 8 x 6 pixels, depthwise 3x3, then a 4x4/2 transposed convolution
    to 2 channels.
    """
    depthwise = nn.Conv2d(4, 4, 3, 1, 1, groups=4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), depthwise, nn.ConvTranspose2d(4, 2, 4, 2, 1))
    convolutions = 3 * 4 * 9 * 12 + 4 * 9 * 12
    assert count_macs(model, (8, 6)) == (
        convolutions + 4 * 2 * 16 * 48,
        convolutions + 4 * 2 * 16 * 12,
    )
    assert next(model.parameters()).device.type == "cpu"


def test_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tools = Path(__file__).resolve().parents[2] / "tools"
    monkeypatch.syspath_prepend(tools)
    monkeypatch.setattr(
        "sys.argv",
        [
            "count_flops.py",
            "--cfg",
            str(EXPERIMENTS / f"{W32}.yaml"),
            "DATASET.INPUT_SIZE",
            "256",
            "DATASET.OUTPUT_SIZE",
            "[64, 128]",
        ],
    )
    import count_flops  # type: ignore[import-not-found]

    count_flops.main()
    printed = capsys.readouterr().out
    assert all(
        text in printed for text in ("256 x 256", "28,649,309", "12.01 (12,005,429,248)", "11.59")
    )


def test_an_input_size_that_does_not_fit_names_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["flops", "--cfg", str(EXPERIMENTS / f"{W32}.yaml"), "DATASET.INPUT_SIZE"]
    monkeypatch.setattr("sys.argv", [*argv, "100"])
    line = "^command line: DATASET.INPUT_SIZE: must be a multiple of 32, not 100$"
    with pytest.raises(ConfigError, match=line):
        flops.main()
    monkeypatch.setattr("sys.argv", [*argv, "256"])  # OUTPUT_SIZE is still that of 512
    flops.main()
