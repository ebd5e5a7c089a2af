"""Turn labelled frames of DeepLabCut into COCO's format.

    python tools/dlc_to_coco.py CollectedData_me.csv --images labeled-data --out data/mouse
    python tools/check_dataset.py data/mouse/annotations/person_keypoints_train.json \\
        data/mouse/images/train --skeleton data/mouse/skeleton.yaml

The CSV file has the header lines scorer, (individuals,) bodyparts and coords, then a line a frame
with x and y of each part, empty where it is not labelled. OUT gets
annotations/person_keypoints_{train,val}.json, images/{train,val}/ and skeleton.yaml.

Boxes lie around the labelled parts, a tenth of their longer side away from them; the area is 0.53
of the box. Flip pairs are found by left and right, or l and r, in the names. The file gives no
constants of the similarity: all parts get --sigma. It gives no limbs either: add them to
skeleton.yaml, as pairs of names, to have them drawn.

Converting again, after more frames were labelled, replaces what an earlier conversion wrote. It
keeps skeleton.yaml, and stops before it would replace labels or images of other origin.

Exit status: 0 done; 2 wrong labels or images; 3 a file that cannot be written; 1 any other error.
"""

from __future__ import annotations

from collections.abc import Sequence

from swahr.commands.flags import Parser, add_dataset_flags, add_flag, named_folder, not_empty
from swahr.converters.coco import write_dataset
from swahr.converters.dlc import SIGMA, read_dlc, split_frames
from swahr.skeleton import Skeleton
from swahr.words import counted


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("csv", type=not_empty, metavar="CSV", help="labels that DeepLabCut wrote")
    add_flag(
        parser,
        "--images",
        type=named_folder,
        required=True,
        metavar="DIR",
        help="folder of the frames",
    )
    add_flag(
        parser,
        "--val",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the frames for validation, drawn at random (default: %(default)s)",
    )
    add_flag(parser, "--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    add_flag(
        parser,
        "--sigma",
        type=float,
        default=SIGMA,
        help="constant of the keypoint similarity, for all parts of a new skeleton.yaml (default: "
        "%(default)s)",
    )
    add_dataset_flags(parser)
    args = parser.parse_args(arguments)
    labels = read_dlc(args.csv, args.images, args.sigma)
    frames = split_frames(labels.images, args.val, args.seed)
    written = write_dataset(args.out, frames, labels.skeleton, "animal", args.copy)
    for split, count in written.images.items():
        animals = counted(written.people[split], "animal")
        print(f"{split:<6} {counted(count, 'image')}, {animals}")
    if labels.unlabelled:
        print(f"left out: {counted(labels.unlabelled, 'frame')} without labels")
    if labels.unique:
        print(f"parts of no animal were left out: {', '.join(labels.unique)}")
    if written.outside:
        parts = counted(written.outside, "part lies", "parts lie")
        print(f"{parts} outside the image and counted as not labelled")
    print(f"flip pairs: {pairs_text(written.skeleton)}")
    if written.kept:
        print(written.kept)


def pairs_text(skeleton: Skeleton) -> str:
    """The flip pairs by name, or that there are none."""
    names = skeleton.keypoints
    pairs = [f"{names[a]} and {names[b]}" for a, b in skeleton.flip_pairs]
    return ", ".join(pairs) or "none, since no names differ in left and right"
