"""Make a report on results: one HTML file with figures, kinds of errors and the worst images.

    python tools/report.py results.json --annotations person_keypoints_val2017.json \\
        --images images/val2017
    python tools/report.py new.json --annotations val.json --skeleton own.yaml --compare old.json
    python tools/report.py results.json --annotations val.json --images images/val \\
        --weights output/coco_kpt/pose_higher_hrnet/w32_512_adam_lr1e-3

With --weights, the network that made RESULTS runs on the worst images again, and the page shows its
heatmaps and tags. Metrics of a module that --import names have a table. The file opens in a
browser, without network. It needs jinja2 and matplotlib.

Exit status: 0 done; 2 wrong results, annotations, images or weights; 3 a file that cannot be
written; 1 any other error.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swahr.api import load
from swahr.commands.flags import Parser, add_flag, add_import_flag, not_empty
from swahr.config import output_dir, run_name
from swahr.data.images import AbsentImages, ImageStore
from swahr.data.keypoints import KeypointDataset, dataset_spec
from swahr.distributed.comm import select_device
from swahr.engine.datasets import adapt_records, build_validation_set
from swahr.engine.map_overlays import MapOverlays
from swahr.engine.provenance import find_weights, results_name
from swahr.evaluation.metrics import NAMES
from swahr.evaluation.records import read_json
from swahr.evaluation.scores import own_figures
from swahr.files import make_folder, write_text
from swahr.inference.load import load_model
from swahr.inference.predictor import build_predictor
from swahr.parts import import_modules
from swahr.report.page import ReportError, check_libraries, make_report
from swahr.skeleton import Skeleton, get_skeleton


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parse(arguments)
    protocol = args.protocol or (args.skeleton if args.skeleton in NAMES else "coco")
    paths = [args.results, *([args.compare] if args.compare else [])]
    import_modules(args.modules)
    check_libraries()
    check_out(args)
    draw_maps = map_overlays(args.weights, args.cfg, args.images)
    results = [read_json(path, "results", list) for path in paths]
    dataset = open_annotations(args.annotations, get_skeleton(args.skeleton))
    page = make_report(
        dataset.coco,
        dict(zip(run_names(paths), [adapt_records(each, dataset) for each in results])),
        dataset.skeleton,
        protocol,
        ImageStore(args.images) if args.images else None,
        args.worst,
        draw_maps,
        lambda records: own_figures(dataset, records, protocol),
    )
    write_text(args.out, page)
    print(args.out)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "results", type=not_empty, metavar="RESULTS", help="result records (JSON list)"
    )
    add_flag(
        parser,
        "--annotations",
        type=not_empty,
        required=True,
        metavar="FILE",
        help="annotations (JSON)",
    )
    add_flag(
        parser,
        "--images",
        type=not_empty,
        metavar="DIR",
        help="folder or zip file of the images",
    )
    add_flag(
        parser,
        "--skeleton",
        type=not_empty,
        default="coco",
        help="coco, crowd_pose or a YAML file (default: %(default)s)",
    )
    add_flag(
        parser,
        "--protocol",
        choices=tuple(NAMES),
        help="of scoring (default: that of the skeleton, coco for a file)",
    )
    add_flag(parser, "--compare", type=not_empty, metavar="OTHER", help="results of a second run")
    add_flag(
        parser,
        "--out",
        type=not_empty,
        default="report.html",
        metavar="FILE",
        help="default: %(default)s",
    )
    add_flag(
        parser,
        "--worst",
        type=int,
        default=24,
        metavar="N",
        help="images shown (default: %(default)s)",
    )
    add_flag(
        parser,
        "--weights",
        type=not_empty,
        metavar="W",
        help="weights or folder of the run, to show heatmaps and tags",
    )
    add_flag(
        parser,
        "--cfg",
        type=not_empty,
        metavar="FILE",
        help="YAML file of the weights, if they need one",
    )
    add_import_flag(parser)
    args = parser.parse_args(arguments)
    if args.worst < 0:
        parser.error(f"--worst {args.worst}: it must be at least 0")
    return args


def check_out(args: argparse.Namespace) -> None:
    """Raise ReportError where the page would replace a file that it is made from."""
    for name in ("results", "annotations", "compare", "images", "skeleton", "weights", "cfg"):
        path = Path(getattr(args, name) or "")
        if path.is_file() and os.path.realpath(path) == os.path.realpath(args.out):
            flag = "RESULTS" if name == "results" else f"--{name}"
            raise ReportError(f"--out {args.out}: would replace {flag}; name another file")


def open_annotations(path: str, skeleton: Skeleton) -> KeypointDataset:
    """The annotations of a file as `swahr score` takes them: what is wrong in them is repaired or
    left out, and logged. The images need not be there. Raises AnnotationError, ReportError.
    """
    dataset = KeypointDataset(path, AbsentImages(Path(path).parent), skeleton, strict=False)
    if not dataset.has_annotations:
        raise ReportError(f"{path}: it has no annotations to report on")
    return dataset


def map_overlays(weights: str | None, config: str | None, images: str | None) -> MapOverlays | None:
    """What draws the maps of the network that the flags name; None without --weights. Raises
    ReportError for flags that miss others, LoadError.
    """
    if weights is None:
        if config is not None:
            raise ReportError("--cfg needs --weights, whose settings it has")
        return None
    if images is None:
        raise ReportError("--weights needs --images, the folder or zip file of the images")
    model = load(weights) if config is None else load(config, weights)
    return MapOverlays(model.predictor)


def write_validation_report(cfg: Any, cfg_path: str, folder: str | Path) -> Path:
    """The report on what a validation left in results/, with maps; returns its path.

    Raises ReportError for a set without annotations, WriteError.
    """
    dataset = build_validation_set(cfg)
    if not dataset.has_annotations:
        raise ReportError(f"--report: {cfg.DATASET.TEST} has no annotations to report on")
    weights = find_weights(cfg, cfg_path)
    results = output_dir(cfg, cfg_path) / "results" / f"{results_name(cfg)}.json"
    device = select_device(cfg.DEVICE)
    network = load_model(cfg, weights, device)
    protocol = dataset_spec(cfg, train=False).protocol
    page = make_report(
        dataset.coco,
        {run_name(cfg, cfg_path): read_json(results, "results", list)},
        dataset.skeleton,
        protocol,
        dataset.images,
        draw_maps=MapOverlays(build_predictor(cfg, network, dataset.skeleton, device)),
        own=lambda records: own_figures(dataset, records, protocol),
    )
    path = make_folder(folder) / "report.html"
    write_text(path, page)
    return path


def run_names(paths: Sequence[str]) -> list[str]:
    """Short names by which runs are told apart: the file's, its folder's before it where they are
    equal, or first and second.
    """
    for length in (1, 2, 3, 4):
        names = ["/".join(Path(path).parts[-length:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [f"{place}: {path}" for place, path in zip(("first", "second"), paths)]
