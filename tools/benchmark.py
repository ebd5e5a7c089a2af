"""Time each part of the program against a plain, slow version: a Markdown table and a JSON file.

    python tools/benchmark.py [--device cuda] [--only decoding] [--people 5 20] [--minutes 8]

The slow versions are those in tests/oracles: the algorithms as published, in Python loops. Both
versions get the same data, made from a seed, and do the same work. They are called in turn, each as
often as the other, and the best time of each is reported. Their results are compared.

Exit status: 0 if everything was measured, 1 if a benchmark failed or two results differ, 2 if the
report cannot be written.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import _init_paths  # noqa: F401  (first: it puts lib/ and the repository on the path)

# isort: split
import torch

import benchmarks.training_steps

# isort: split
import benchmarks.cpu_kernels
import benchmarks.cpu_processes
import benchmarks.engines
import benchmarks.network
import benchmarks.operations
import benchmarks.postprocessing
import benchmarks.shared_cpu
import benchmarks.video
from benchmarks.harness import BENCHMARKS, Bench, Row, describe, different, table
from swahr.distributed.comm import select_device
from swahr.distributed.launch import main_with_exit_status
from swahr.files import WriteError, replacing

PEOPLE = (1, 3, 5, 10, 20, 30)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument(
        "--only", action="append", choices=sorted(BENCHMARKS), help="a benchmark; can be repeated"
    )
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, help="sizes of the crowds")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="least time for each measurement"
    )
    parser.add_argument(
        "--calls",
        type=int,
        help="least number of calls of each version (default: 3; on a GPU 8, as CUDA graphs are "
        "replayed from the fifth call on)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="after so many no further benchmark starts",
    )
    parser.add_argument(
        "--data", type=Path, metavar="ROOT", help="COCO's tree, for validation on its train2017"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output/benchmark"),
        help="folder for benchmark.md and .json",
    )
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use")
    if min(args.people) < 1:
        parser.error("--people: a crowd has 1 person or more")
    calls = args.calls if args.calls is not None else 8 if args.device == "cuda" else 3
    if calls < 1:
        parser.error("--calls: each version is called 1 time or more")
    select_device(args.device)  # and the settings of the process that the other programs have
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            args.device,
            list(args.people),
            seconds=args.seconds,
            calls=calls,
            folder=Path(folder),
            data=args.data,
        )
        rows, problems = measure_all(bench, args.only or list(BENCHMARKS), args.minutes)
        about = describe(bench, sys.argv[1:] if arguments is None else arguments)
        if bench.cuda:
            about |= benchmarks.training_steps.describe_card()
    report = table(about, rows, problems, bench.estimates)
    print(f"\n{report}")
    try:
        write_reports(args.out, report, about, rows, problems)
    except WriteError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"written to {args.out}")
    for row in different(rows):
        print(f"Results differ: {row.benchmark}, {row.case}", file=sys.stderr)
    return 1 if problems or different(rows) else 0


def measure_all(bench: Bench, names: list[str], minutes: float) -> tuple[list[Row], dict[str, str]]:
    """The rows of these benchmarks, and why others have none.

    A benchmark that raises an error, or would start or go on after so many minutes, is among the
    latter.
    """
    rows = []
    problems = {}
    end = time.monotonic() + 60 * minutes
    for name in names:
        if time.monotonic() > end:
            problems[name] = f"the {minutes:g} minutes were over"
            continue
        try:
            for row in BENCHMARKS[name](bench):
                rows.append(row)
                time_taken = f": {row.ours_ms:.3f} ms" if row.ours_ms else ""
                print(f"{row.benchmark}, {row.case}{time_taken}", flush=True)
                if time.monotonic() > end:
                    problems[name] = f"ended early: the {minutes:g} minutes were over"
                    break
        except Exception as error:  # the others are still measured; the exit status is 1
            problems[name] = f"{type(error).__name__}: {error}"
    return rows, problems


def write_reports(
    folder: Path,
    report: str,
    about: dict[str, str],
    rows: list[Row],
    problems: dict[str, str],
) -> None:
    """Write benchmark.md and benchmark.json; WriteError if that is impossible."""
    data = {
        "about": about,
        "problems": problems,
        "rows": [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows],
    }
    reports = {
        "benchmark.md": report,
        "benchmark.json": json.dumps(data, indent=1),
    }
    for name, text in reports.items():
        with replacing(folder / name, durable=False) as file:
            file.write(text.encode())


if __name__ == "__main__":
    main_with_exit_status(lambda: sys.exit(main()))
