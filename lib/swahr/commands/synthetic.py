"""Make synthetic people: a set in COCO's or CrowdPose's format, a fixed benchmark, or a video.

    python tools/make_synthetic.py --out data/synthetic --train 2000 --preset calm --size 256
    python tools/make_synthetic.py --out data/benchmark --preset benchmark-v1-small
    python tools/make_synthetic.py --out data/benchmark --verify
    python tools/make_synthetic.py --out data/walk --video

A second run with the same settings makes only what is missing. benchmark-v1 (20,000 training and
2,000 validation images of 512 px) and benchmark-v1-small (2,000 and 400 of 256 px) are fixed to the
byte: both have COCO's and CrowdPose's annotations for the same images, people whose height is
log-uniform over 1:12, images from one person to dense groups, and a manifest with checksums.

Exit status: 0 done; 1 a benchmark that differs from its checksums, or any other error; 2 wrong
flags, or a folder of something else; 3 a file that cannot be written.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from typing import Any

from swahr.synthetic import (
    BENCHMARKS,
    PRESETS,
    SceneSettings,
    SyntheticError,
    verify_benchmark,
    write_benchmark,
    write_dataset,
    write_video,
)
from swahr.synthetic.scene import MIN_IMAGE_SIDE
from swahr.synthetic.video import MAX_SIDE, MIN_SIDE
from swahr.words import counted

MAX_PROBLEMS_SHOWN = 20
# Values of the flags that were not given.
DEFAULTS = {
    "train": 2000,
    "val": 200,
    "seed": 0,
    "format": "coco",
    "preset": "benchmark",
    "size": None,
    "workers": os.cpu_count() or 1,
    "frames": 100,
    "people": 5,
}
LEAST = {"train": 1, "val": 1, "seed": 0, "workers": 1, "frames": 1, "people": 1}
# Which of these flags go together.
OF_VIDEO = ("seed", "size", "frames", "people")
OF_SET = ("train", "val", "seed", "format", "preset", "size", "workers")
OF_BENCHMARK = ("preset", "workers")


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    # Imported here: the processes that draw import this file, and do without PyTorch.
    from swahr.commands.flags import Parser, add_flag, named_folder

    parser = Parser(__doc__)
    add_flag(
        parser,
        "--out",
        type=named_folder,
        default="data/synthetic",
        help="folder of the set; with --video also a file.mp4 (default: %(default)s)",
    )
    add_flag(parser, "--train", type=int, metavar="N", help="training images (default: 2000)")
    add_flag(
        parser,
        "--val",
        type=int,
        metavar="N",
        help="validation images, and as many test images for CrowdPose (default: 200)",
    )
    add_flag(parser, "--seed", type=int, help="other seeds give other images (default: 0)")
    add_flag(
        parser,
        "--format",
        choices=("coco", "crowd_pose"),
        help="folders, annotations and keypoints (default: coco)",
    )
    add_flag(
        parser,
        "--preset",
        choices=(*PRESETS, *BENCHMARKS),
        help="benchmark: every size from 25 px, crowded; calm: one to three large people before "
        "plain backgrounds; the others are fixed sets, see above (default: benchmark)",
    )
    add_flag(
        parser,
        "--size",
        type=int,
        nargs="+",
        metavar="PX",
        help="image size: one side of a square, or width and height (default: the preset's range; "
        "640 480 with --video)",
    )
    add_flag(parser, "--workers", type=int, help="processes (default: one for each core)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--verify", action="store_true", help="compare a benchmark in --out with its checksums"
    )
    kinds.add_argument(
        "--video", action="store_true", help="make a walk of people with known ids, 10 frames/s"
    )
    add_flag(parser, "--frames", type=int, metavar="N", help="with --video (default: 100)")
    add_flag(parser, "--people", type=int, metavar="N", help="with --video (default: 5)")
    args = parser.parse_args(arguments)
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    if problem := find_flag_problem(args, given):
        parser.error(problem)
    for name, value in (DEFAULTS | given).items():
        setattr(args, name, value)
    return args


def find_flag_problem(args: argparse.Namespace, given: dict[str, Any]) -> str:
    """What is wrong with the flags that were given, in one line; '' if nothing is."""
    for name, value in given.items():
        if reason := why_ignored(name, args):
            return f"--{name}: {reason}"
        if name in LEAST and value < LEAST[name]:
            return f"--{name} {value}: it must be at least {LEAST[name]}"
    return ""


def why_ignored(name: str, args: argparse.Namespace) -> str:
    """Why a flag has no effect on what is made; '' if it has one."""
    if args.verify:
        is_of_set = name == "workers" or (name == "preset" and args.preset in BENCHMARKS)
        return "" if is_of_set else "--verify takes no flag but --out"
    if args.video:
        return "" if name in OF_VIDEO else f"--video takes --{', --'.join(OF_VIDEO)}"
    if name not in OF_SET:
        return "it needs --video"
    if args.preset in BENCHMARKS and name not in OF_BENCHMARK:
        return f"{args.preset} is fixed; choose another --preset to set it"
    return ""


def image_size(args: argparse.Namespace) -> tuple[int, int] | None:
    """Width and height of --size; None if it was not given."""
    if not args.size:
        return None
    if len(args.size) > 2:
        raise SyntheticError(
            f"--size: {len(args.size)} numbers; it takes one (a square) or two (width and height)"
        )
    least = MIN_SIDE if args.video else MIN_IMAGE_SIDE
    if min(args.size) < least:
        raise SyntheticError(f"--size: {min(args.size)} px; a side has at least {least} px")
    if max(args.size) > MAX_SIDE:
        raise SyntheticError(f"--size: {max(args.size)} px; a side has at most {MAX_SIDE} px")
    return args.size[0], args.size[-1]


def settings_from(args: argparse.Namespace) -> SceneSettings:
    """The settings of --preset with the image size of --size."""
    settings = PRESETS[args.preset]
    size = image_size(args)
    if size is None:
        return settings
    width, height = size
    return replace(settings, width=(width, width), height=(height, height))


def make_set(args: argparse.Namespace) -> None:
    """Make the set of --preset, and print how many images were made."""
    # Imported here for the same reason as in parse_args.
    from swahr.engine.progress import setup_logging

    setup_logging()
    start = time.perf_counter()
    if args.preset in BENCHMARKS:
        made = write_benchmark(args.out, args.preset, workers=args.workers, progress=True)
    else:
        made = write_dataset(
            args.out,
            num_train=args.train,
            num_val=args.val,
            seed=args.seed,
            format=args.format,
            settings=settings_from(args),
            workers=args.workers,
            progress=True,
        )
    if made:
        speed = made / (time.perf_counter() - start)
        print(f"{args.out}: {counted(made, 'image')}, {speed:.0f} images/s")
    else:
        print(f"{args.out}: complete, nothing to do")


def verify(root: str) -> int:
    """Print the differences between a benchmark and its checksums; return the exit status."""
    problems = verify_benchmark(root)
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        print(problem)
    if len(problems) > MAX_PROBLEMS_SHOWN:
        print(f"... and {len(problems) - MAX_PROBLEMS_SHOWN} more")
    print(f"{root}: {counted(len(problems), 'difference')}" if problems else f"{root}: verified")
    return 1 if problems else 0


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    if args.verify:
        return verify(args.out)
    if args.video:
        truth = write_video(
            args.out,
            num_frames=args.frames,
            num_people=args.people,
            seed=args.seed,
            size=image_size(args) or (640, 480),
        )
        print(f"{args.out}: {counted(args.frames, 'frame')}, people in {truth}")
        return 0
    make_set(args)
    return verify(args.out) if args.preset in BENCHMARKS else 0
