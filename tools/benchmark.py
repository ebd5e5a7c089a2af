"""Time each part of the program against a plain, slow version: a Markdown table and a JSON file.

    python tools/benchmark.py [--device cuda] [--only decoding] [--people 5 20] [--minutes 8]

The slow versions are those in tests/oracles: the algorithms as published, in Python loops. Both
versions get the same data, made from a seed, and do the same work. They are called in turn, and the
best time of each is reported. On a CPU each is called as often as the other; on a GPU the plain
version is called no more once it has taken two seconds. Their results are compared.

The report is written before the first row and after each one, so that a run that is ended leaves
what it had measured.

Exit status: 0 if everything was measured, 1 if a benchmark failed or two results differ, 2 if the
report cannot be written.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
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

# isort: split
import benchmarks.compiled  # the last one, because compiling takes the most time
from benchmarks.harness import (
    BENCHMARKS,
    COLUMNS,
    Bench,
    Row,
    TimeOver,
    describe,
    different,
    peak_memory,
    table,
    table_line,
    time_limit,
)
from swahr.commands.flags import Parser, add_flag, finite_number, named_folder
from swahr.distributed.comm import select_device
from swahr.distributed.launch import main_with_exit_status
from swahr.files import WriteError, write_text

PEOPLE = (1, 3, 5, 10, 20, 30)
GRACE = 30.0  # seconds after --minutes in which a row that has started may end
# Called with the rows so far, and the benchmarks that are not finished.
Report = Callable[[list[Row], list[str]], object]


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    add_flag(
        parser,
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
    )
    parser.add_argument(
        "--only", action="append", choices=sorted(BENCHMARKS), help="a benchmark; can be repeated"
    )
    add_flag(parser, "--people", type=int, nargs="+", default=PEOPLE, help="sizes of the crowds")
    add_flag(
        parser,
        "--seconds",
        type=finite_number,
        default=1.0,
        help="least time for each measurement",
    )
    add_flag(
        parser,
        "--calls",
        type=int,
        default=3,
        help="least number of clocked calls (default: %(default)s)",
    )
    add_flag(
        parser,
        "--minutes",
        type=finite_number,
        default=float("inf"),
        help="after so many no further row starts, and half a minute later none goes on",
    )
    add_flag(
        parser,
        "--data",
        type=named_folder,
        metavar="ROOT",
        help="COCO's tree, for validation on its train2017",
    )
    add_flag(
        parser,
        "--out",
        type=named_folder,
        default="output/benchmark",
        help="folder for benchmark.md and .json",
    )
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use")
    if min(args.people) < 1:
        parser.error("--people: a crowd has 1 person or more")
    if args.calls < 1:
        parser.error("--calls: each version is called 1 time or more")
    for name in ("seconds", "minutes"):
        if getattr(args, name) < 0:
            parser.error(f"--{name} {getattr(args, name):g}: it must be at least 0")
    if args.data is not None and not Path(args.data).is_dir():
        parser.error(f"--data {args.data}: no such folder")
    gc.freeze()  # collections before each row then skip what was imported, which takes 0.2 s
    select_device(args.device)  # and the settings of the process that the other programs have
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            args.device,
            list(args.people),
            seconds=args.seconds,
            calls=args.calls,
            folder=Path(folder),
            data=None if args.data is None else Path(args.data),
            minutes=args.minutes,
        )
        about = describe(bench, sys.argv[1:] if arguments is None else arguments)
        if bench.cuda:
            about |= benchmarks.training_steps.describe_card()

        def report(rows: list[Row], left: list[str]) -> str:
            return write_reports(Path(args.out), about, bench, rows, left)

        names = args.only or list(BENCHMARKS)
        try:
            report([], names)
            print(f"| {' | '.join(COLUMNS)} |")
            rows = measure_all(bench, names, report)
            print(f"\n{report(rows, [])}")
        except WriteError as error:
            print(error, file=sys.stderr)
            return 2
    print(f"written to {args.out}")
    for row in different(rows):
        print(f"Results differ: {row.benchmark}, {row.case}", file=sys.stderr)
    return 1 if bench.problems or different(rows) else 0


def measure_all(bench: Bench, names: Iterable[str], report: Report) -> list[Row]:
    """The rows of these benchmarks; bench.problems then says why others have none.

    A report that cannot be written after a row is written after the next one.
    """
    rows: list[Row] = []
    left = list(names)

    def keep() -> None:
        try:
            report(rows, left)
        except WriteError as error:
            print(error, file=sys.stderr)

    def measure(name: str) -> None:
        try:
            bench.free()
            for row in BENCHMARKS[name](bench):
                rows.append(row)
                print(table_line(row), flush=True)
                keep()
        except Exception as error:  # the others are still measured; the exit status is 1
            bench.note(name, error)

    try:
        with time_limit(60 * bench.minutes + GRACE):
            while left:
                bench.check_time()
                measure(left[0])
                del left[0]
                keep()
    except TimeOver:
        over = f"not finished after {bench.minutes:g} minutes"
        bench.problems |= dict.fromkeys(left, over)
    return rows


def write_reports(
    folder: Path, about: dict[str, str], bench: Bench, rows: list[Row], left: list[str]
) -> str:
    """Write benchmark.md and benchmark.json, and return the former.

    left: the benchmarks that are not finished. Raises WriteError if the system cannot write them.
    """
    about = about | {"peak memory of the process": peak_memory()}
    problems = bench.problems | dict.fromkeys(left, "not finished when this was written")
    data = {
        "about": about,
        "problems": problems,
        "rows": [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows],
    }
    text = table(about, rows, problems, bench.estimates)
    write_text(folder / "benchmark.md", text)
    write_text(folder / "benchmark.json", json.dumps(data, indent=1))
    return text


if __name__ == "__main__":
    main_with_exit_status(lambda: sys.exit(main()))
