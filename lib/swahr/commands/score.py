"""Score a results file, from this project or from elsewhere, against the annotations of
DATASET.TEST, by the protocol of DATASET.DATASET_TEST (COCO or CrowdPose).

    python tools/score_results.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        results.json DATASET.ROOT data/coco

A results file is a JSON list of records, as COCO's server takes them: image_id, category_id,
keypoints [x, y, score] * K, score. The images are not needed. Metrics of a module that --import
names stand in the table too.

Exit status: 0 done; 2 wrong settings, annotations or results; 1 any other error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swahr.commands.flags import Parser, add_flag, add_import_flag, check_no_key, not_empty
from swahr.config import SCHEMA, ConfigError, check_files, check_pairs, load_config
from swahr.data.trees import dataset_spec
from swahr.engine.datasets import adapt_records, build_validation_set
from swahr.evaluation import scores
from swahr.evaluation.metrics import EvaluationError, format_table
from swahr.evaluation.records import read_json
from swahr.parts import import_modules


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    add_flag(
        parser,
        "--cfg",
        type=not_empty,
        required=True,
        metavar="FILE",
        help="YAML file of the experiment",
    )
    parser.add_argument(
        "results",
        type=not_empty,
        metavar="RESULTS",
        help="results file (JSON); it comes before the settings",
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="settings that replace the file's"
    )
    add_import_flag(parser)
    args = parser.parse_intermixed_args(arguments)
    import_modules(args.modules)
    check_results(args.results)
    check_pairs(args.opts)
    stats = score(load_config(args.cfg, args.opts), args.results)
    print(format_table(Path(args.results).stem, stats))


def check_results(word: str) -> None:
    """Raise ConfigError for a setting, or one with a slip in its key, in the place of RESULTS."""
    key = word.partition("=")[0]
    if key in SCHEMA and not os.path.exists(word):
        raise ConfigError([f"{key}: is a setting; RESULTS, the results file, comes before them"])
    check_no_key(word)


def score(cfg: Any, results: str | Path) -> dict[str, float]:
    """The figures of a results file, those of METRICS included; EvaluationError, MetricError and
    the data set's errors in one line each.
    """
    check_files(cfg, dataset=True)
    dataset = build_validation_set(cfg, need_images=False)
    if not dataset.has_annotations:
        raise EvaluationError(
            f"{dataset.annotation_file} has no annotations, so there is nothing to score against"
        )
    records = adapt_records(read_json(results, "results", list), dataset)
    protocol = dataset_spec(cfg, train=False).protocol
    try:
        figures = scores.score(dataset.coco, records, dataset.skeleton, protocol).figures
    except EvaluationError as error:
        raise EvaluationError(f"{results}: {error}") from None
    return figures | scores.own_figures(dataset, records, protocol)
