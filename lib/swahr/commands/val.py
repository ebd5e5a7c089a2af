"""Find the people of DATASET.TEST with trained weights and score them: on every visible GPU, or on
the CPU if there is none.

    python tools/dist_valid.py --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        TEST.MODEL_FILE models/pose_coco/pose_higher_hrnet_w32_512.pth \\
        TEST.SCALE_FACTOR '[0.5, 1.0, 2.0]'

Without TEST.MODEL_FILE the best weights of the configuration's own run are tested. The table is
printed, with the weights, the settings of the test and the skipped images. The folder results/ of
the run gets it too (.md, and its figures as _figures.json), and the people in the servers' format
(.json). The files are called keypoints_<TEST>_results; tests without flip or with other scales than
1 have a suffix, such as _noflip_scales0.5-1-2. --report DIR writes DIR/report.html, which shows the
errors (see `swahr report`). TEST.RESUME True resumes a validation that was interrupted. Exit
status: 0 done; 2 wrong settings, weights or data; 130 Ctrl-C; 1 any other error.
"""

from __future__ import annotations

import argparse
import signal

from swahr.commands.flags import add_flag, load_run_config, parse_flags, run_parser
from swahr.commands.report import write_validation_report
from swahr.config import check_files
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.distributed.signals import Interrupted
from swahr.engine.provenance import find_weights
from swahr.engine.validate import validate_weights
from swahr.parts import with_modules
from swahr.report.page import check_libraries

KEPT = "; the images that are done are kept: TEST.RESUME True resumes after them"


def parse_args() -> argparse.Namespace:
    parser = run_parser(__doc__, "--world_size", "--gpus")
    add_flag(parser, "--report", metavar="DIR", help="folder of an HTML report on the results")
    return parse_flags(parser)


def main() -> None:
    args = parse_args()
    cfg = load_run_config(args)
    if args.report is not None:
        check_libraries()
    check_files(cfg, model_file=True, dataset=True)
    find_weights(cfg, args.cfg)  # stops here, before any process starts, if there are none
    processes = comm.count_processes(cfg.DEVICE, args.processes)
    validate = with_modules(validate_weights, args.modules)
    try:
        report = launch(validate, (cfg, args.cfg), processes)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted(getattr(stop, "number", signal.SIGINT), KEPT) from None
    if comm.is_main():
        print(report)
        if args.report is not None:
            print(write_validation_report(cfg, args.cfg, args.report))
