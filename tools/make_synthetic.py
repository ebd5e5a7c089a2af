"""Make a set of synthetic people in COCO's or CrowdPose's format.

    python tools/make_synthetic.py --out data/synthetic --train 2000 --val 200 --preset calm --size
    256

Running it again with the same settings makes only what is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace

import _init_paths  # noqa: F401

from swahr.synthetic import PRESETS, SceneSettings, SyntheticError, write_dataset


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", default="data/synthetic", help="folder of the set (default: %(default)s)"
    )
    parser.add_argument(
        "--train",
        type=int,
        default=2000,
        metavar="N",
        help="training images (default: %(default)s)",
    )
    parser.add_argument(
        "--val",
        type=int,
        default=200,
        metavar="N",
        help="validation images, and as many test images for CrowdPose (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="other seeds give other images (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("coco", "crowd_pose"),
        default="coco",
        help="tree, annotations and keypoints (default: %(default)s)",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="benchmark",
        help="benchmark: every size from 25 px, crowded; calm: one to three large people, plain places",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PX",
        help="image size: one side of a square, or width and height (default: the preset's range)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    return parser.parse_args()


def settings_from(args: argparse.Namespace) -> SceneSettings:
    settings = PRESETS[args.preset]
    if not args.size:
        return settings
    if len(args.size) > 2:
        raise SyntheticError(
            f"--size: {len(args.size)} numbers; it takes one (a square) or two (width and height)"
        )
    width = args.size[0]
    height = args.size[-1]
    return replace(settings, width=(width, width), height=(height, height))


def main() -> int:
    args = parse_args()
    start = time.perf_counter()
    try:
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
    except (SyntheticError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if made:
        print(f"{args.out}: {made} images, {made / (time.perf_counter() - start):.0f} images/s")
    else:
        print(f"{args.out}: complete, nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
