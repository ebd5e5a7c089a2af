#!/usr/bin/env python
"""Find the people of DATASET.TEST with trained weights and score them: on every visible GPU, or on
the CPU without one.

    python tools/dist_valid.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        TEST.MODEL_FILE models/pose_coco/pose_higher_hrnet_w32_512.pth TEST.SCALE_FACTOR '[0.5, 1.0,
        2.0]'

Without TEST.MODEL_FILE the best weights of the configuration's own run are tested. The table is
printed and, with the results as the servers take them, written to results/ in the run's output
folder. TEST.RESUME True goes on with a validation that was cut off. Exit status: 0 done; 2 wrong
settings, weights or data; 1 any other error.
"""

from __future__ import annotations

import argparse

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)
from _flags import load_run_config, parse_flags, run_parser

from swahr.config import check_files
from swahr.distributed import comm
from swahr.distributed.launch import launch, main_with_exit_status
from swahr.engine.validate import find_weights, run_validation
from swahr.evaluation.metrics import format_table
from swahr.parts import with_modules


def parse_args() -> argparse.Namespace:
    parser = run_parser(__doc__, "--world_size", "--gpus")
    return parse_flags(parser)


def main() -> None:
    args = parse_args()
    cfg = load_run_config(args)
    check_files(cfg, model_file=True, dataset=True)
    find_weights(cfg, args.cfg)  # where there are none, say so before any process starts
    stats = launch(
        with_modules(run_validation, args.modules),
        (cfg, args.cfg),
        comm.count_processes(cfg.DEVICE, args.processes),
    )
    if comm.is_main():
        print(
            format_table(cfg.MODEL.NAME, stats)
            if stats
            else f"{cfg.DATASET.TEST} has no annotations, so no score"
        )


if __name__ == "__main__":
    main_with_exit_status(main)
