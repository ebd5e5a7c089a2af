#!/usr/bin/env python
"""Find the people of DATASET.TEST with trained weights and score them: on every visible GPU, or on the CPU without one.

    python tools/dist_valid.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        TEST.MODEL_FILE models/pose_coco/pose_higher_hrnet_w32_512.pth TEST.SCALE_FACTOR '[0.5, 1.0, 2.0]'

Without TEST.MODEL_FILE the best weights of the configuration's own run are tested. The table is printed and, with the
results as the servers take them, written to results/ in the run's output folder. TEST.RESUME True goes on with a
validation that was cut off. Exit status: 0 done; 2 wrong settings, weights or data; 1 any other error.
"""

from __future__ import annotations

import argparse

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.config import check_files, load_config
from swahr.engine import distributed
from swahr.engine.launcher import launch, run_tool
from swahr.engine.validate import find_weights, run_validation
from swahr.evaluation.metrics import format_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument("--world_size", "--gpus", type=int, metavar="N", help="processes (default: one for each GPU)")
    parser.add_argument("--gpu", type=int, metavar="I", help="use this GPU alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: GPUs if there are any; see DEVICE")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings that take the place of the file's")
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse_args()
    device = f"cuda:{args.gpu}" if args.gpu is not None else args.device
    cfg = load_config(args.cfg, [*args.opts, *(["DEVICE", device] if device else [])])
    check_files(cfg, model_file=True, dataset=True)
    find_weights(cfg, args.cfg)  # where there are none, say so before any process starts
    stats = launch(run_validation, (cfg, args.cfg), distributed.count_processes(cfg.DEVICE, args.world_size))
    if distributed.is_main():
        print(format_table(cfg.MODEL.NAME, stats) if stats else f"{cfg.DATASET.TEST} has no annotations, so no score")


if __name__ == "__main__":
    run_tool(main)
