"""Check images and annotations in COCO's format as training and testing do, count what they hold,
and draw some of them.

    python tools/check_dataset.py data/coco/annotations/person_keypoints_val2017.json \\
        data/coco/images/val2017
    python tools/check_dataset.py own.json own_images --skeleton own.yaml --contact-sheet sheet.jpg
    python tools/check_dataset.py own.json own_images --skeleton own.yaml \\
        --suggest-sigmas --second others.json
    python tools/check_dataset.py --cfg experiments/finetune/base.yaml --augmented sheet.jpg \\
        DATASET.ROOT data/mine DATASET.SKELETON data/mine/skeleton.yaml

Exit status: 0 no problems (notes are allowed); 1 problems, or any other error; 2 the set cannot be
used at all, or wrong settings; 3 a file that cannot be written.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from swahr.commands.flags import Parser, add_flag, add_import_flag, not_empty
from swahr.config import ConfigError, check_files, check_pairs, load_config
from swahr.data.annotation_check import load_annotations
from swahr.data.annotation_report import MAX_LINES, AnnotationError
from swahr.data.double_labels import ENOUGH, label_spread, suggest_sigmas
from swahr.data.images import Image, ImageError
from swahr.data.keypoints import KeypointDataset
from swahr.engine.augmented_sheet import EXAMPLES, augmented_sheet
from swahr.engine.datasets import build_training_set
from swahr.parts import import_modules
from swahr.skeleton import TYPICAL_SIGMA, MissingSigmas, Skeleton, get_skeleton, load_skeleton
from swahr.visualize import draw_people, make_grid, save_image, unknown_format
from swahr.words import counted

SHEET = 16  # images of a contact sheet
COLUMNS = 4
CELL = 320  # px of each image


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parse(arguments)
    import_modules(args.modules)
    cfg = _configuration(args)
    dataset = _open(args) if cfg is None else _open_configured(cfg)
    print(dataset.report)
    for name, value in counts(dataset):
        print(f"{name:<28} {value}")
    broken = unreadable(dataset) if args.read_images else []
    if args.contact_sheet:
        save_image(args.contact_sheet, contact_sheet(dataset))
        print(f"contact sheet: {args.contact_sheet}")
    if args.augmented:
        save_image(args.augmented, augmented_sheet(cfg, dataset))
        print(f"augmented images: {args.augmented}")
    if args.suggest_sigmas:
        print_sigmas(dataset, args.second)
    return 1 if dataset.report.count or broken else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="annotation file (JSON), and folder or zip file of the images; with --cfg settings "
        "KEY VALUE",
    )
    add_flag(
        parser,
        "--skeleton",
        type=not_empty,
        help="coco, crowd_pose or a YAML file (default: coco, or that of --cfg)",
    )
    add_flag(
        parser,
        "--categories",
        nargs="+",
        default=(),
        metavar="NAME",
        help="categories that are used (default: all whose keypoints are the skeleton's)",
    )
    add_flag(
        parser,
        "--contact-sheet",
        type=not_empty,
        metavar="FILE",
        help=f"draw {SHEET} annotated images into this file",
    )
    parser.add_argument(
        "--read-images", action="store_true", help="read every image too (some minutes for COCO)"
    )
    add_flag(
        parser,
        "--cfg",
        type=not_empty,
        metavar="FILE",
        help="YAML file of an experiment: check its training set",
    )
    add_flag(
        parser,
        "--augmented",
        type=not_empty,
        metavar="FILE",
        help=f"draw {EXAMPLES} images as training sees them, with their targets; needs --cfg",
    )
    parser.add_argument(
        "--suggest-sigmas",
        action="store_true",
        help="print sigmas for the skeleton file, which may lack them: measured with --second, "
        "else by a rule of thumb",
    )
    add_flag(
        parser,
        "--second",
        type=not_empty,
        metavar="FILE",
        help="annotations of the same images by somebody else",
    )
    add_import_flag(parser)
    return parser.parse_intermixed_args(arguments)


def _configuration(args: argparse.Namespace) -> Any:
    """The configuration of --cfg; None without it. ConfigError for flags that miss others, and for
    sheets whose file names are none of images.
    """
    for flag, path in (("--contact-sheet", args.contact_sheet), ("--augmented", args.augmented)):
        kind = Path(path or "").suffix
        if path and not cv2.haveImageWriter(kind):
            raise ConfigError([f"{flag} {path}: {unknown_format(kind)}"])
    if args.second and not args.suggest_sigmas:
        raise ConfigError(["--second needs --suggest-sigmas, which it is for"])
    if args.cfg is None:
        if args.augmented:
            raise ConfigError(["--augmented needs --cfg, the experiment whose training it shows"])
        if len(args.words) != 2 or not all(args.words):
            raise ConfigError(
                ["give an annotation file and the folder of its images, or --cfg FILE"]
            )
        return None
    for flag, given in (("--skeleton", args.skeleton), ("--categories", args.categories)):
        if given:
            key = f"DATASET.{flag[2:].upper()}"
            raise ConfigError([f"{flag} and --cfg: give the setting {key} instead"])
    check_pairs(args.words)
    return load_config(args.cfg, [*args.words, "DATASET.STRICT", "False"])


def _open(args: argparse.Namespace) -> KeypointDataset:
    annotations, images = args.words
    skeleton = _skeleton(args.skeleton or "coco", may_lack_sigmas=args.suggest_sigmas)
    return KeypointDataset(annotations, images, skeleton, categories=args.categories, strict=False)


def _skeleton(name: str, *, may_lack_sigmas: bool) -> Skeleton:
    """The skeleton of --skeleton. Raises SkeletonError."""
    try:
        return get_skeleton(name)
    except MissingSigmas:
        if not may_lack_sigmas:
            raise
    print(f"note: {name} has no sigmas yet; training needs them")
    return load_skeleton(name, default_sigma=TYPICAL_SIGMA)


def _open_configured(cfg: Any) -> KeypointDataset:
    """The training set of a configuration, as training opens it."""
    check_files(cfg, dataset=True)
    return build_training_set(cfg)


def print_sigmas(dataset: KeypointDataset, second: str | None) -> None:
    """Print the sigmas of a skeleton file, and what they are made from.

    second: annotations of the same images by somebody else. Raises AnnotationError.
    """
    skeleton = dataset.skeleton
    spread = None
    if second:
        other = load_annotations(second, skeleton, dataset.categories)
        print(other.report)
        spread = label_spread(dataset.coco, other.data, skeleton)
        if not spread.people:
            raise AnnotationError(
                f"{second}: nobody in it was labelled in {dataset.annotation_file} too; the images "
                "must have the same file_name"
            )
        print(f"{'people labelled twice':<28} {spread.people}")
        print(f"{'people labelled once':<28} {spread.alone}")
        for name, sigma, count in zip(skeleton.keypoints, spread.sigmas, spread.labels):
            why = "" if count >= ENOUGH else f", fewer than {ENOUGH}"
            why = ", which are all equal" if sigma == 0 else why
            rule = f"{why}: a rule of thumb is taken" if why else ""
            labels = counted(int(count), "double label")
            print(f"  {name:<26} {sigma:.4f} from {labels}{rule}")
    else:
        print(
            "sigmas by a rule of thumb: COCO's for keypoints of its names, "
            f"{TYPICAL_SIGMA} for others; --second FILE measures them"
        )
    print(f"sigmas: {suggest_sigmas(skeleton, spread)}")


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
        np.where(mask[..., None] > 0, image, image // 3),
        dataset.joints(image_id)[..., :3],
        dataset.skeleton,
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
