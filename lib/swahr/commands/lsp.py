"""Turn photographs listed in joints.csv (Leeds Sports Pose Extended) into COCO's format.

    python tools/lsp_to_coco.py --data lspet --out data/lsp
    python tools/check_dataset.py data/lsp/annotations/person_keypoints_train.json \\
        data/lsp/images/train --skeleton data/lsp/skeleton.yaml

DATA has joints.csv and images/. The first line of joints.csv names its columns: image, split, then
NAME_x, NAME_y, NAME_v of each joint, in this order: right_ankle, right_knee, right_hip, left_hip,
left_knee, left_ankle, right_wrist, right_elbow, right_shoulder, left_shoulder, left_elbow,
left_wrist, neck, head_top. A line follows for each image: the name of its file, its split (train or
val), and of each joint x and y in pixels, and v, which is 1, or 0 where the joint is not labelled.

OUT gets annotations/person_keypoints_{train,val}.json, images/{train,val}/ and skeleton.yaml. A
person's box lies around the labelled joints, a tenth of its longer side away from them; the area is
0.53 of the box. Joints outside their image count as not labelled. Converting again replaces what an
earlier conversion wrote, keeps skeleton.yaml, and stops before it would replace files of other
origin.

Exit status: 0 done; 2 wrong labels or images; 3 a file that cannot be written; 1 any other error.
"""

from __future__ import annotations

from collections.abc import Sequence

from swahr.commands.flags import Parser, add_dataset_flags, add_flag, named_folder
from swahr.converters.coco import write_dataset
from swahr.converters.lsp import SKELETON, read_lsp
from swahr.words import counted


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    add_flag(
        parser,
        "--data",
        type=named_folder,
        required=True,
        metavar="DIR",
        help="joints.csv and images/",
    )
    add_dataset_flags(parser)
    args = parser.parse_args(arguments)
    written = write_dataset(args.out, read_lsp(args.data), SKELETON, copy=args.copy)
    for split, count in written.images.items():
        people = counted(written.people[split], "person", "people")
        print(f"{split:<6} {counted(count, 'image')}, {people}")
    if written.outside:
        joints = counted(written.outside, "joint lies", "joints lie")
        print(f"{joints} outside the image and counted as not labelled")
    if written.kept:
        print(written.kept)
