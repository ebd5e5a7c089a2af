#!/usr/bin/env python
"""Find people in the images of a folder, or in a video: their keypoints as JSON, and skeletons
drawn.

    python tools/dist_inference.py --img_dir photos --save_dir found \\
        --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        TEST.MODEL_FILE models/pose_coco/pose_higher_hrnet_w32_512.pth

--save_dir gets people.json (COCO's format, with scores in the place of visibility) and every image,
or the video,
with its people drawn. Files that are no images are listed at the end and change nothing else: the
exit status is 0 unless there is not one image. 2: wrong settings, weights or folders; 1: any other
error.
"""

from __future__ import annotations

import argparse
import sys

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)
from _flags import load_run_config, run_parser

from swahr.config import check_files
from swahr.distributed import comm
from swahr.distributed.launch import launch, main_with_exit_status
from swahr.engine.infer import Folder, InferenceError, infer_folder, infer_video
from swahr.engine.provenance import find_weights


def parse_args() -> argparse.Namespace:
    parser = run_parser(__doc__, "--world_size", "--gpus")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--img_dir", metavar="DIR", help="folder of images")
    source.add_argument("--video", metavar="FILE", help="a video instead; one process")
    parser.add_argument(
        "--save_dir", required=True, metavar="DIR", help="where to write; made if it is not there"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.1,
        metavar="S",
        help="draw people from this score (0.1)",
    )
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse_args()
    cfg = load_run_config(args)
    check_files(cfg, model_file=True)
    find_weights(cfg, args.cfg)  # where there are none, say so before any process starts
    if args.video:
        return infer_video(cfg, args.cfg, args.video, args.save_dir, args.threshold)
    count = len(Folder(args.img_dir).names)
    processes = comm.count_processes(cfg.DEVICE, args.processes)
    problems = launch(
        infer_folder, (cfg, args.cfg, args.img_dir, args.save_dir, args.threshold), processes
    )
    if problems and comm.is_main():
        print(
            f"{len(problems)} of {count} files left out:",
            *problems.values(),
            sep="\n  ",
            file=sys.stderr,
        )
        if len(problems) == count:
            raise InferenceError(f"--img_dir {args.img_dir}: none of the {count} files is an image")


if __name__ == "__main__":
    main_with_exit_status(main)
