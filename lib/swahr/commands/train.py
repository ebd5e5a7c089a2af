"""Train a network: on every visible GPU, one process each, or on the CPU where there is none.

    python tools/dist_train.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml [KEY
    VALUE ...]

Under torchrun, srun or Kubeflow it joins the processes that are there. If AUTO_RESUME is True, the
same command resumes an interrupted run. Exit status: 0 done; 2 wrong settings or data; 3 a full
disk, or a non-finite loss; 143, 138 or 130 stopped by SIGTERM, SIGUSR1 or Ctrl-C, with a
checkpoint; 4 killed STOP_SECONDS after a signal, without one; 1 any other error.
"""

from __future__ import annotations

import argparse

from swahr.commands.flags import add_flag, load_run_config, parse_flags, run_parser
from swahr.config import check_files
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.engine.progress import setup_logging
from swahr.engine.train import train
from swahr.parts import with_modules


def parse_args() -> argparse.Namespace:
    parser = run_parser(__doc__, "--gpus")
    add_flag(parser, "--world-size", type=int, default=1, metavar="N", help="number of nodes")
    add_flag(parser, "--rank", type=int, default=0, metavar="N", help="number of this node, from 0")
    add_flag(
        parser,
        "--dist-url",
        default="",
        metavar="URL",
        help="address of node 0, tcp://HOST:PORT; several nodes need it",
    )
    add_flag(
        parser,
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="start all processes again after a failure, at most N times (default: 0)",
    )
    parser.add_argument(
        "--allow-changes",
        "--allow_changes",
        action="store_true",
        help="resume although settings that decide what is learnt have changed (RESUME_CHANGED)",
    )
    return parse_flags(parser)


def main() -> None:
    args = parse_args()
    setup_logging()
    if args.allow_changes:
        args.opts = ["RESUME_CHANGED=True", *args.opts]
    cfg = load_run_config(args)
    check_files(cfg, pretrained=True, dataset=True)
    processes = comm.count_processes(cfg.DEVICE, args.processes)
    launch(
        with_modules(train, args.modules),
        (cfg, args.cfg),
        processes,
        nodes=args.world_size,
        node_rank=args.rank,
        url=args.dist_url,
        restarts=args.restarts,
        stop_seconds=cfg.STOP_SECONDS,
    )
