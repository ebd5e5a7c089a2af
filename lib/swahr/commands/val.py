"""Find the people of DATASET.TEST with trained weights and score them: on every visible GPU, or on
the CPU if there is none.

    python tools/dist_valid.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        TEST.MODEL_FILE models/pose_coco/pose_higher_hrnet_w32_512.pth \\
        TEST.SCALE_FACTOR '[0.5, 1.0, 2.0]'
    swahr val --weights demo DATASET.ROOT data/synthetic

Without TEST.MODEL_FILE the best weights of the configuration's own run are tested. --weights takes
a run's folder, a published model or a file of weights, each with its own settings. The table is
printed, with the weights, the settings of the test and the skipped images. The folder results/ of
the run gets it too (.md, and its figures as _figures.json), and the people in the servers' format
(.json). Weights of --weights that lie in no run's folder get a folder of their own:
OUTPUT_DIR/<data set>/<model>/<name>_<first digits of their sha256>. The files are called
keypoints_<TEST>_results; tests without flip or with other scales than 1 have a suffix, such as
_noflip_scales0.5-1-2. --report DIR writes DIR/report.html, which shows the errors (see `swahr
report`). TEST.RESUME True resumes a validation that was interrupted. Exit status: 0 done; 2 wrong
settings, weights or data; 3 a file that cannot be written; 130 Ctrl-C; 1 any other error.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from swahr.commands.flags import (
    add_flag,
    add_weights_flag,
    check_run_config,
    load_run_config,
    named_folder,
    parse_flags,
    run_parser,
    run_settings,
)
from swahr.commands.report import write_validation_report
from swahr.config import check_files, resolve_path
from swahr.config.paths import SAVED_CONFIG
from swahr.config.places import COMMAND_LINE, get_places, set_places
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.distributed.signals import Interrupted
from swahr.engine.model_files import ModelFiles, find_model, run_of
from swahr.engine.provenance import DIGEST_LENGTH, find_weights, sha256
from swahr.engine.validate import validate_weights
from swahr.files import make_folder
from swahr.parts import with_modules
from swahr.report.page import check_libraries

KEPT = "; the images that are done are kept: TEST.RESUME True resumes after them"


def parse_args() -> argparse.Namespace:
    parser = run_parser(__doc__, "--world_size", "--gpus", instead="--weights")
    add_weights_flag(parser)
    add_flag(
        parser,
        "--report",
        metavar="DIR",
        type=named_folder,
        help="folder of an HTML report on the results",
    )
    return parse_flags(parser, takes_models=True)


def main() -> None:
    args = parse_args()
    cfg, cfg_path = load_model(args)
    if args.report is not None:
        check_libraries()
    check_files(cfg, model_file=True, dataset=True)
    find_weights(cfg, cfg_path)  # stops here, before any process starts, if there are none
    if args.report is not None:
        make_folder(args.report)
    processes = comm.count_processes(cfg.DEVICE, args.processes)
    validate = with_modules(validate_weights, args.modules)
    try:
        report = launch(validate, (cfg, cfg_path), processes)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted(getattr(stop, "number", signal.SIGINT), KEPT) from None
    if comm.is_main():
        print(report)
        if args.report is not None:
            print(write_validation_report(cfg, cfg_path, args.report))


def load_model(args: argparse.Namespace) -> tuple[Any, str]:
    """The configuration, whose TEST.MODEL_FILE are the weights of --weights, and the path by which
    output_dir finds the folder of the results. Raises ConfigError, CheckpointError or LoadError.
    """
    if args.weights is None:
        return load_run_config(args), args.cfg
    weights = args.weights if args.cfg else None
    model = find_model(args.cfg or args.weights, weights, run_settings(args))
    cfg = check_run_config(args, model.cfg).clone()
    cfg.defrost()
    cfg.TEST.MODEL_FILE = str(model.weights)
    set_places(cfg, get_places(cfg) | {"TEST.MODEL_FILE": "--weights"})
    path, name = results_place(args, model)
    if get_places(cfg).get("RUN_NAME") != COMMAND_LINE:
        cfg.RUN_NAME = name
    cfg.freeze()
    return cfg, path


def results_place(args: argparse.Namespace, model: ModelFiles) -> tuple[str, str]:
    """The path and the RUN_NAME by which output_dir gives the folder of the results: the run's, or
    one of the weights' own, in which no other results lie.
    """
    path = args.cfg or args.weights
    if resolve_path(path).suffix.lower() in (".yaml", ".yml"):
        return path, model.cfg.RUN_NAME
    run = run_of(Path(os.path.abspath(model.weights)))
    if run is not None:
        return str(run / SAVED_CONFIG), run.name
    digest = sha256(model.weights)[:DIGEST_LENGTH]
    return str(model.weights), f"{model.cfg.RUN_NAME}_{digest}"
