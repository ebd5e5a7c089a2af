"""Make a report on results: one HTML file with figures, kinds of errors and the worst images.

    python tools/report.py results.json --annotations person_keypoints_val2017.json \
        --images images/val2017
    python tools/report.py new.json --annotations val.json --skeleton own.yaml --compare old.json

The file opens in a browser, without network. It needs jinja2 and matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swahr.data.images import ImageStore
from swahr.evaluation.metrics import NAMES
from swahr.evaluation.records import read_json
from swahr.files import write_text
from swahr.report.page import check_libraries, make_report
from swahr.skeleton import get_skeleton


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", metavar="RESULTS", help="result records (JSON list)")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="annotations (JSON)")
    parser.add_argument("--images", metavar="DIR", help="folder or zip file of the images")
    parser.add_argument(
        "--skeleton", default="coco", help="coco, crowd_pose or a YAML file (default: %(default)s)"
    )
    parser.add_argument(
        "--protocol",
        choices=tuple(NAMES),
        help="of scoring (default: that of the skeleton, coco for a file)",
    )
    parser.add_argument("--compare", metavar="OTHER", help="results of a second run")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--worst", type=int, default=24, metavar="N", help="images shown (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    protocol = args.protocol or (args.skeleton if args.skeleton in NAMES else "coco")
    paths = [args.results, *([args.compare] if args.compare else [])]
    try:
        check_libraries()
        page = make_report(
            read_json(args.annotations, "annotations", dict),
            dict(zip(run_names(paths), [read_json(path, "results", list) for path in paths])),
            get_skeleton(args.skeleton),
            protocol,
            ImageStore(args.images) if args.images else None,
            max(args.worst, 0),
        )
        write_text(args.out, page)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(args.out)
    return 0


def run_names(paths: Sequence[str]) -> list[str]:
    """Short names by which runs are told apart: the file's, its folder's before it where they are
    equal, or first and second.
    """
    for length in (1, 2, 3, 4):
        names = ["/".join(Path(path).parts[-length:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [f"{place}: {path}" for place, path in zip(("first", "second"), paths)]
