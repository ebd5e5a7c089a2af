"""Time every piece of the program against a plain, slow version of it: a Markdown table and a JSON
file.

    python tools/benchmark.py [--device cuda] [--only decoding] [--people 5 20] [--minutes 8] [--out
    output/benchmark]

The slow versions are those in tests/oracles: the algorithms as published, in Python loops. Data are
made from a seed; both versions get the same ones in the same run, and their results are compared.
Times are the best of several.
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

import benchmarks.network
import benchmarks.postprocessing  # noqa: F401
from benchmarks.harness import PIECES, Bench, describe, table
from swahr.distributed.comm import select_device
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
        "--only", action="append", choices=sorted(PIECES), help="a piece; again for another one"
    )
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE, help="sizes of the crowds")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="least time for each measurement"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="after so many no further piece starts"
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
    select_device(args.device)  # which also does to the process what the other programs do
    rows = []
    problems = {}
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.device, list(args.people), args.seconds, Path(folder), args.data)
        for name in args.only or PIECES:
            if time.monotonic() > end:
                problems[name] = f"the {args.minutes:g} minutes were over"
                continue
            try:
                for row in PIECES[name](bench):
                    rows.append(row)
                    print(f"{row.piece}, {row.case}: {row.ours_ms:.3f} ms", flush=True)
            except (
                Exception
            ) as error:  # the other pieces are still worth measuring; the exit status tells
                problems[name] = f"{type(error).__name__}: {error}"
    about = describe(bench)
    report = table(about, rows, problems)
    data = {
        "about": about,
        "problems": problems,
        "rows": [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows],
    }
    print(f"\n{report}")
    try:
        for name, text in (
            ("benchmark.md", report),
            ("benchmark.json", json.dumps(data, indent=1)),
        ):
            with replacing(args.out / name, durable=False) as file:
                file.write(text.encode())
    except WriteError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"written to {args.out}")
    return 1 if problems or any(row.same is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
