"""Join CrowdPose's train and val annotations into trainval, on which the published experiments
train.

    python tools/crowdpose_concat_train_val.py --data_dir data/crowd_pose/json

Exit status: 0 done; 2 wrong annotations; 3 a file that cannot be written; 1 any other error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swahr.commands.flags import Parser, add_flag, named_folder
from swahr.data.annotation_check import read_annotations
from swahr.data.annotation_report import AnnotationError
from swahr.files import shorten, write_text
from swahr.words import counted


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    add_flag(
        parser,
        "--data_dir",
        "--root",
        type=named_folder,
        default="data/crowd_pose/json",
        metavar="DIR",
        help="folder of crowdpose_train.json and crowdpose_val.json (default: %(default)s)",
    )
    folder = Path(parser.parse_args(arguments).data_dir)
    target = folder / "crowdpose_trainval.json"
    joined = join(folder / "crowdpose_train.json", folder / "crowdpose_val.json")
    write_text(target, json.dumps(joined))
    images, people = (len(joined[kind]) for kind in ("images", "annotations"))
    print(f"{target}: {counted(images, 'image')}, {counted(people, 'annotation')}")


def join(first: Path, second: Path) -> dict[str, Any]:
    """The images and annotations of two annotation files, with the categories of the first.

    Raises AnnotationError if one cannot be read, or if both have the same id (for example because
    they are the same split).
    """
    parts = [read_annotations(path) for path in (first, second)]
    joined: dict[str, Any] = {"categories": parts[0].get("categories")}
    for kind in ("images", "annotations"):
        joined[kind] = [item for part in parts for item in part.get(kind, [])]
        ids = Counter(
            shorten(item.get("id") if isinstance(item, dict) else item) for item in joined[kind]
        )
        repeated = [value for value, count in ids.items() if count > 1]
        if repeated:
            raise AnnotationError(
                f"{first} and {second.name}: both have {counted(len(repeated), 'id')} of {kind}, "
                f"such as {repeated[0]}"
            )
    return joined
