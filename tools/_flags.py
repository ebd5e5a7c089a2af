"""The flags that the tools which run a network share, and the configuration they ask for."""

from __future__ import annotations

import argparse

from yacs.config import CfgNode

from swahr.config import load_config


def run_parser(description: str | None, *processes: str) -> argparse.ArgumentParser:
    """A parser with the shared flags; processes: the tool's names of the flag for the number of
    processes.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument(
        *processes,
        dest="processes",
        type=int,
        metavar="N",
        help="processes on this node (default: one for each visible GPU)",
    )
    parser.add_argument("--gpu", type=int, metavar="I", help="use this GPU alone")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: GPUs if there are any; see DEVICE"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="settings that take the place of the file's"
    )
    return parser


def load_run_config(args: argparse.Namespace) -> CfgNode:
    """The configuration of --cfg with the settings behind the command and the device of --gpu or
    --device.
    """
    device = f"cuda:{args.gpu}" if args.gpu is not None else args.device
    return load_config(args.cfg, [*args.opts, *(["DEVICE", device] if device else [])])
