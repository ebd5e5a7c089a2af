"""Train several configurations with several seeds, and write what comes out with the spread.

    python tools/run_ablation.py experiments/synthetic/ablation --baseline higher_hrnet --seeds 3 \\
        --out docs/ablation.md
    python tools/run_ablation.py new.yaml old.yaml --seeds 2 --parallel 2 DATASET.ROOT data/mine

LIST: YAML files, and folders, of which all YAML files but base.yaml are taken. Each run has a
folder of its own, named after the file and the seed. The same command resumes: runs that are done
are kept, others continue from their checkpoints. With other settings of the test (TEST.*), trained
runs are tested again. A run that fails does not stop the others. The page gets tables and charts:
AP, also by height and keypoint, joints given to the wrong person, differences with bootstrap
intervals, the learnt scale maps, and the losses. Of a page that is there, only the part between its
two marks is replaced. It needs matplotlib. Exit status: 0 done; 1 some runs failed; 2 wrong
settings; 130 or 143 after a signal, with checkpoints.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from swahr.ablation.charts import check_library
from swahr.ablation.figures import RunFigures, collect
from swahr.ablation.page import check_page, write_page
from swahr.ablation.plan import AblationError, PlannedRun, find_files, plan_runs
from swahr.ablation.processes import RunProcesses, make_slots
from swahr.commands.flags import Parser, add_flag, add_import_flag, check_no_key, not_empty
from swahr.config import check_files, check_pairs
from swahr.distributed import comm
from swahr.distributed.launch import is_known
from swahr.distributed.signals import Interrupted
from swahr.engine.datasets import build_validation_set
from swahr.engine.progress import setup_logging
from swahr.parts import import_modules
from swahr.report.breakdown import RESAMPLES

logger = logging.getLogger("swahr")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("list", nargs="+", metavar="LIST", help="files, folders, then KEY VALUE")
    add_flag(
        parser, "--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)"
    )
    add_flag(
        parser,
        "--baseline",
        type=not_empty,
        metavar="NAME",
        help="what the others are compared with (default: the first)",
    )
    add_flag(
        parser,
        "--parallel",
        type=int,
        default=0,
        metavar="N",
        help="runs at the same time (default: one for each GPU, one on the CPU)",
    )
    add_flag(
        parser,
        "--out",
        type=not_empty,
        default="docs/ablation.md",
        metavar="FILE",
        help="the page (default: %(default)s)",
    )
    add_flag(
        parser,
        "--resamples",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help="of the bootstrap (default: %(default)s)",
    )
    add_import_flag(parser)
    args = parser.parse_intermixed_args(arguments)
    args.files, args.opts = split_settings(args.list)
    for name, least in (("seeds", 1), ("parallel", 0), ("resamples", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: it must be at least {least}")
    if not args.files or not all(args.files):
        parser.error("LIST: it names no file or folder")
    return args


def split_settings(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and folders in front, and the settings behind them: from the first word that is
    upper-case up to a dot or an equals sign, and whose key is not the name of a YAML file.
    """
    for place, word in enumerate(given):
        key = word.split("=")[0]
        is_file = key.lower().endswith((".yaml", ".yml")) or os.path.exists(word)
        if key.split(".")[0].isupper() and not is_file:
            return list(given[:place]), list(given[place:])
    return list(given), []


def order(names: Sequence[str], baseline: str | None) -> list[str]:
    """The names with the baseline in front. AblationError if it is none of them."""
    if baseline is None:
        return list(names)
    if baseline not in names:
        raise AblationError(f"--baseline {baseline}: it is one of {', '.join(names)}")
    return [baseline, *(name for name in names if name != baseline)]


def visible_gpus(cfg_device: str) -> list[str]:
    """Names of the GPUs that runs may use, as CUDA_VISIBLE_DEVICES takes them."""
    if cfg_device == "cpu" or not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return given.split(",") if given else list(map(str, range(torch.cuda.device_count())))


@contextmanager
def sigterm_as_interrupt() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt while the block runs; the list then holds its number."""
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def run_missing(args: argparse.Namespace, runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Train or test the runs that are not done; returns {name: why} for those that failed."""
    missing = [run for run in runs if not run.is_done()]
    logger.info("%d of %d runs are done already", len(runs) - len(missing), len(runs))
    if not missing:
        return {}
    gpus = visible_gpus(missing[0].cfg.DEVICE)
    slots = make_slots(args.parallel, gpus, os.cpu_count() or 1)
    with sigterm_as_interrupt() as received:
        try:
            return RunProcesses(slots, args.modules).run(missing)
        except KeyboardInterrupt:
            number = received[0] if received else signal.SIGINT
            raise Interrupted(number, "; the same command resumes") from None


def collect_all(
    planned: Mapping[str, Sequence[PlannedRun]], failed: dict[str, str]
) -> dict[str, dict[int, RunFigures]]:
    """The figures of the runs that are done, by label and seed; what cannot be read is added to
    `failed`. Configurations without any are left out.
    """
    results: dict[str, dict[int, RunFigures]] = {}
    for label, runs in planned.items():
        for run in (run for run in runs if run.name not in failed):
            try:
                figures = collect(run, comm.select_device(run.cfg.DEVICE))
            except (ValueError, OSError) as error:
                failed[run.name] = str(error)
                logger.error("%s: %s", run.name, error, exc_info=not is_known(error))
                continue
            results.setdefault(label, {})[run.seed] = figures
    return results


def conditions(args: argparse.Namespace, runs: Sequence[PlannedRun]) -> list[str]:
    """Lines on how the figures were measured."""
    words = [*args.list, "--seeds", str(args.seeds)]
    if args.baseline:
        words += ["--baseline", args.baseline]
    words += ["--out", args.out]
    if args.resamples != RESAMPLES:
        words += ["--resamples", str(args.resamples)]
    words += [part for module in args.modules for part in ("--import", module)]
    return [
        f"command: `python tools/run_ablation.py {shlex.join(words)}`",
        *_recipes(runs),
        f"machine: {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}; "
        f"torch {torch.__version__}",
    ]


def _recipes(runs: Sequence[PlannedRun]) -> list[str]:
    """Data, input and length of the trainings: once, or of each configuration if they differ."""
    recipes = {}
    for run in runs:
        data = run.cfg.DATASET
        recipes[run.label] = (
            f"data: {data.ROOT}, trained on {data.TRAIN}, scored on {data.TEST}; "
            f"input: {data.INPUT_SIZE} px; {run.cfg.TRAIN.END_EPOCH} epochs"
        )
    if len(set(recipes.values())) == 1:
        return [recipes[runs[0].label]]
    return [f"{label}: {recipe}" for label, recipe in recipes.items()]


def check_test_set(run: PlannedRun) -> None:
    """Raise in one line where the images that runs are tested on, or their labels, are missing."""
    dataset = build_validation_set(run.cfg)
    if not dataset.has_annotations:
        raise AblationError(f"{dataset.annotation_file}: has no annotations to score with")


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_args(arguments)
    setup_logging()
    import_modules(args.modules)
    check_library()
    check_page(args.out)
    for word in args.files:
        check_no_key(word)
    check_pairs(args.opts)
    files = find_files(args.files)
    files = {name: files[name] for name in order(list(files), args.baseline)}
    planned = plan_runs(files, args.seeds, args.opts)
    # Seed by seed, so that what is done after an interruption compares all configurations.
    runs = [run for of_seed in zip(*planned.values()) for run in of_seed]
    for group in planned.values():
        check_files(group[0].cfg, pretrained=True, dataset=True)
    check_test_set(runs[0])
    failed = run_missing(args, runs)
    results = collect_all(planned, failed)
    if not results:
        raise AblationError("no run is done, so there is nothing to compare")
    for path in write_page(
        args.out,
        results,
        baseline=next(iter(planned)),
        conditions=conditions(args, runs),
        failed=failed,
        resamples=args.resamples,
    ):
        print(path)
    for name, why in failed.items():
        print(f"{name} failed: {why}", file=sys.stderr)
    return 1 if failed else 0
