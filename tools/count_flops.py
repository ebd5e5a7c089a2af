"""Print how large a configured network is, and what it takes for one image of DATASET.INPUT_SIZE."""

from __future__ import annotations

import argparse
import sys

import _init_paths  # noqa: F401
import torch
from swahr.config import load_config
from swahr.models.build import build_model
from swahr.models.flops import count_macs, count_parameters


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cfg", required=True, help="experiment file (YAML)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings that replace those of the file")
    args = parser.parse_args()
    try:
        cfg = load_config(args.cfg, args.opts)
        size = cfg.DATASET.INPUT_SIZE
        with torch.device("meta"):  # shapes are all that counts
            model = build_model(cfg)
        published, exact = count_macs(model, size)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = [
        ("input", f"{size} x {size}"),
        ("parameters", f"{count_parameters(model):,}"),
        ("GMACs, published rule", f"{published / 1e9:.2f} ({published:,})"),
        ("GMACs, exact", f"{exact / 1e9:.2f} ({exact:,})"),
    ]
    for name, value in rows:
        print(f"{name:<22} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
