"""Check images and annotations in COCO's format as training and testing do, count what they hold,
and draw some of them.

    python tools/check_dataset.py data/coco/annotations/person_keypoints_val2017.json \\
        data/coco/images/val2017
    python tools/check_dataset.py own.json own_images --skeleton own.yaml --contact-sheet sheet.jpg

Exit status: 0 no problems (notes are allowed), 1 problems, 2 the set cannot be used at all.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from swahr.data.annotation_report import MAX_LINES
from swahr.data.images import Image, ImageError
from swahr.data.keypoints import KeypointDataset
from swahr.skeleton import get_skeleton
from swahr.visualize import draw_people, make_grid, save_image

SHEET = 16  # images of a contact sheet
COLUMNS = 4
CELL = 320  # px of each image


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", help="annotation file (JSON)")
    parser.add_argument("images", help="folder or zip file of the images")
    parser.add_argument(
        "--skeleton", default="coco", help="coco, crowd_pose or a YAML file (default: %(default)s)"
    )
    parser.add_argument(
        "--categories",
        nargs="+",
        default=(),
        metavar="NAME",
        help="categories that are used (default: all whose keypoints are the skeleton's)",
    )
    parser.add_argument(
        "--contact-sheet", metavar="FILE", help=f"draw {SHEET} annotated images into this file"
    )
    parser.add_argument(
        "--read-images", action="store_true", help="read every image too (some minutes for COCO)"
    )
    args = parser.parse_args(arguments)
    try:
        dataset = KeypointDataset(
            args.annotations,
            args.images,
            get_skeleton(args.skeleton),
            categories=args.categories,
            strict=False,
        )
        print(dataset.report)
        for name, value in counts(dataset):
            print(f"{name:<28} {value}")
        broken = unreadable(dataset) if args.read_images else []
        if args.contact_sheet:
            save_image(args.contact_sheet, contact_sheet(dataset))
            print(f"contact sheet: {args.contact_sheet}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if dataset.report.count or broken else 0


def counts(dataset: KeypointDataset) -> Iterator[tuple[str, object]]:
    """The lines of a table: what the data set holds."""
    arrays = dataset.arrays
    people = np.diff(arrays.starts)
    labelled = arrays.keypoints[..., 2] > 0
    yield "images", len(dataset)
    yield "images with annotations", int((people > 0).sum())
    yield "annotations", len(labelled)
    yield "people with keypoints", int((arrays.labelled > 0).sum())
    yield "people in one image, at most", int(people.max(initial=0))
    yield "crowds without keypoints", int((~arrays.is_person).sum())
    yield "masked regions", int(arrays.is_masked.sum())
    for name, count in zip(dataset.skeleton.keypoints, labelled.sum(0).tolist()):
        yield f"  {name}", count


def unreadable(dataset: KeypointDataset) -> list[str]:
    """Read every image, and print those that cannot be read, and those whose EXIF orientation is
    ignored (at most 20 of each). Returns the lines on the former.
    """
    problems = []
    turned = []
    for image_id in dataset.image_ids:
        try:
            _, orientation_problem = dataset.read_and_check(image_id)
        except ImageError as error:
            problems.append(str(error))
        else:
            turned += [orientation_problem] * bool(orientation_problem)
    print(f"images that cannot be read   {len(problems)}", *problems[:MAX_LINES], sep="\n  ")
    print(f"EXIF orientations ignored    {len(turned)}", *turned[:MAX_LINES], sep="\n  ")
    return problems


def contact_sheet(dataset: KeypointDataset) -> Image:
    """Images with labelled people, spread evenly over the data set, with skeletons drawn and masked
    regions darkened.
    """
    return make_grid([cell(dataset, image_id) for image_id in dataset.examples(SHEET)], COLUMNS)


def cell(dataset: KeypointDataset, image_id: int) -> Image:
    """One image of the sheet, (CELL, CELL, 3); black if it cannot be read."""
    try:
        image = dataset.read(image_id)
        mask = dataset.mask(image_id)
    except ImageError:
        return np.zeros((CELL, CELL, 3), np.uint8)
    image = draw_people(
        np.where(mask[..., None] > 0, image, image // 3), dataset.joints(image_id), dataset.skeleton
    )
    zoom = CELL / max(image.shape[:2])
    small = cv2.resize(
        image,
        None,
        fx=zoom,
        fy=zoom,
        interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR,
    )
    square = np.zeros((CELL, CELL, 3), np.uint8)
    square[: small.shape[0], : small.shape[1]] = small[:CELL, :CELL]
    return square


def run() -> int:
    """`main` as a command: what the data set would log, main prints."""
    logger = logging.getLogger("swahr.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return main()
    finally:
        logger.setLevel(level)
