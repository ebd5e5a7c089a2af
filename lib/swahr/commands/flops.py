"""Print the size of a configured network and its MACs for one image of DATASET.INPUT_SIZE.

    python tools/count_flops.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml

Any setting can be given as KEY VALUE behind the command. MACs are the multiply-accumulates of the
convolutions, counted by the rule of the published figures and exactly.
"""

from __future__ import annotations

import argparse

import torch

from swahr.commands.flags import config_parser, load_run_config, parse_flags
from swahr.config import raise_problems
from swahr.config.rules import find_size_problems
from swahr.models.build import build_model
from swahr.models.flops import count_macs, count_parameters


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__, "TEST.MODEL_FILE x.onnx, an exported network")
    return parse_flags(parser, takes_models=True)


def main() -> None:
    cfg = load_run_config(parse_args())
    size = cfg.DATASET.INPUT_SIZE
    with torch.device("meta"):  # only shapes are needed
        model = build_model(cfg)
    problems = find_size_problems(cfg, model.strides, model.size_divisor)
    # DATASET.OUTPUT_SIZE is of training, and need not follow an input size that is only counted.
    raise_problems(cfg, (each for each in problems if each.keys[0] == "DATASET.INPUT_SIZE"))
    published, exact = count_macs(model, size)
    rows = [
        ("input", f"{size} x {size}"),
        ("parameters", f"{count_parameters(model):,}"),
        ("GMACs, published rule", f"{published / 1e9:.2f} ({published:,})"),
        ("GMACs, exact", f"{exact / 1e9:.2f} ({exact:,})"),
    ]
    for name, value in rows:
        print(f"{name:<22} {value}")
