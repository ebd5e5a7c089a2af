"""Find people in images or in a video: their keypoints as JSON, and drawn skeletons.

    python tools/dist_inference.py photo.jpg 'photos/*.png' more_photos --save_dir found \\
        --cfg experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml \\
        TEST.MODEL_FILE models/pose_coco/pose_higher_hrnet_w32_512.pth

Images are given as arguments, by --img or by --img_dir: files, folders and globs. They are read as
viewers show them (EXIF orientation). Without TEST.MODEL_FILE the best weights of the
configuration's own run are used.

--save_dir gets every image, or the video, with its people drawn, and people.json in COCO's format.
There, a joint's visibility is 2 if its score is above half of --threshold, 1 if it is lower, and 0
if the joint was not found; "keypoint_scores" has the scores. Files that are not images are listed
at the end and change nothing else. After Ctrl-C, a kill or an error, people.json has the images
that are done. Exit status: 0 done, unless no file is an image; 2 wrong settings, weights or images;
130 after Ctrl-C, 143 after SIGTERM; 1 any other error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from swahr.commands.flags import add_flag, load_run_config, parse_flags, run_parser
from swahr.config import check_files, defaults
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.engine.image_sources import ImageFiles, InferenceError
from swahr.engine.infer import infer_images, infer_video
from swahr.engine.provenance import find_weights
from swahr.parts import with_modules


def parse_args() -> argparse.Namespace:
    parser = run_parser(__doc__, "--world_size", "--gpus")
    parser.add_argument(
        "--img",
        nargs="+",
        action="extend",
        default=[],
        metavar="SOURCE",
        help="image files, folders or globs; the flag itself may be omitted",
    )
    add_flag(parser, "--img_dir", metavar="DIR", help="folder of images")
    parser.add_argument(
        "--recursive", action="store_true", help="read the folders in a folder of images too"
    )
    add_flag(parser, "--video", metavar="FILE", help="a video instead of images; one process")
    add_flag(
        parser,
        "--save_dir",
        required=True,
        metavar="DIR",
        help="folder of the results, made if needed",
    )
    add_flag(
        parser,
        "--threshold",
        type=float,
        default=0.1,
        metavar="S",
        help="draw and write the people with at least this score (%(default)s)",
    )
    parser.add_argument(
        "--all", action="store_true", help="write people with lower scores to people.json too"
    )
    args = parse_flags(parser)
    images, opts = split_sources(args.opts)
    flagged, more_opts = split_sources(args.img)
    args.opts = opts + more_opts
    args.img = images + flagged
    given = sum((bool(args.img), args.img_dir is not None, args.video is not None))
    if given != 1:
        parser.error("give images (or --img), --img_dir or --video, and only one of them")
    return args


def split_sources(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images and the settings among the words of a command. A word whose first part is a
    section of the configuration, and that is not a file, begins a setting: KEY VALUE or KEY=VALUE.
    """
    known = defaults()
    images: list[str] = []
    opts: list[str] = []
    remaining = iter(words)
    for word in remaining:
        key, equals, _ = word.partition("=")
        if key.partition(".")[0] not in known or Path(word).exists():
            images.append(word)
        elif equals:
            opts.append(word)
        else:
            opts += [word, *islice(remaining, 1)]
    return images, opts


def main() -> None:
    args = parse_args()
    cfg = load_run_config(args)
    check_files(cfg, model_file=True)
    find_weights(cfg, args.cfg)  # stops here, before any process starts, if there are none
    where = (cfg, args.cfg)
    results = (args.save_dir, args.threshold)
    if args.video is not None:
        return infer_video(*where, args.video, *results, keep_all=args.all)
    if args.img_dir is not None and not Path(args.img_dir).is_dir():
        raise InferenceError(f"--img_dir {args.img_dir}: there is no such folder")
    sources = args.img if args.img_dir is None else [args.img_dir]
    files = ImageFiles(sources, recursive=args.recursive, exclude=args.save_dir)
    processes = comm.count_processes(cfg.DEVICE, args.processes)

    def start(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        launch(with_modules(function, args.modules), arguments, processes)

    skipped = infer_images(*where, files, *results, keep_all=args.all, start=start)
    if comm.is_main():
        report_skipped(files, skipped)


def report_skipped(files: ImageFiles, skipped: dict[str, str]) -> None:
    """Name what was not used. Raises InferenceError if that is everything."""
    if files.skipped_folders:
        print(
            f"{len(files.skipped_folders)} folders skipped (--recursive reads them):",
            *files.skipped_folders,
            sep="\n  ",
            file=sys.stderr,
        )
    count = len(files.names)
    if skipped:
        print(
            f"{len(skipped)} of {count} files skipped:",
            *skipped.values(),
            sep="\n  ",
            file=sys.stderr,
        )
    if len(skipped) == count:
        raise InferenceError(f"{files.title}: none of the {count} files is an image")
