"""Synthetic data sets on disk: annotations, images, and the fixed benchmark sets with manifests.

A set has the folders and files of COCO or of CrowdPose. What is already complete is not made again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from swahr.files import write_bytes, write_text
from swahr.skeleton import COCO, CROWD_POSE, Skeleton
from swahr.synthetic.scene import (
    JOINTS,
    PRESETS,
    Person,
    SceneSettings,
    SyntheticError,
    joint_indices,
    render_scene,
)
from swahr.synthetic.shapes import Image

Record = dict[str, Any]

VERSION = 1  # raised when the same settings give other images
STAMP = "synthetic.json"
MANIFEST = "manifest.json"
MAX_IMAGES = 1_000_000
MAX_PEOPLE_PER_IMAGE = 1_000  # annotation id = image id x this + index of the person
# First image id of each split. So the images of a split do not depend on the others' sizes.
FIRST_ID = {"train": 1, "val": 1_000_001, "test": 2_000_001}
# JPEG: a PNG of these noisy images takes five times the space. libjpeg-turbo, which every
# opencv-python-headless contains, computes with integers alone: 4.10 and 4.14 write the same bytes.
JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 92)
ALL_JOINTS = Skeleton(
    name="all joints", keypoints=JOINTS, flip_pairs=(), sigmas=(1.0,) * len(JOINTS)
)


class Tree(NamedTuple):
    """Where a format keeps its files. {} is the name of the split, or the id of the image."""

    skeleton: Skeleton
    annotations: str
    images: str
    file_name: str
    splits: tuple[str, ...]


TREES = {
    "coco": Tree(
        COCO,
        "annotations/person_keypoints_{}2017.json",
        "images/{}2017",
        "{:012d}.jpg",
        ("train", "val"),
    ),
    "crowd_pose": Tree(
        CROWD_POSE, "json/crowdpose_{}.json", "images", "{}.jpg", ("train", "val", "test")
    ),
}


def write_dataset(
    root: str | Path,
    *,
    num_train: int,
    num_val: int,
    num_test: int | None = None,
    seed: int = 0,
    format: str = "coco",
    settings: SceneSettings = PRESETS["benchmark"],
    workers: int = 1,
    progress: bool = False,
) -> int:
    """Write a set below root; return the number of images made, 0 if the set was complete.

    format: "coco" or "crowd_pose". CrowdPose has a test split of num_test images (default num_val),
    and everybody in it is labelled, because its files have no masks. workers: processes that
    render; the files do not depend on it. Raises SyntheticError if root holds another set, or if a
    number is out of range.
    """
    counts = {"train": num_train, "val": num_val, "test": num_val if num_test is None else num_test}
    if format not in TREES:
        raise SyntheticError(f"format: {format!r} must be one of {', '.join(TREES)}")
    _check_numbers(counts, workers, seed)
    tree = TREES[format]
    if format == "crowd_pose":
        settings = SceneSettings(**{**asdict(settings), "unlabelled": 0.0, "crowd": 0.0})
    root = Path(root)
    images = {split: counts[split] for split in tree.splits}
    stamp = {
        "version": VERSION,
        "format": format,
        "seed": seed,
        "images": images,
        "settings": asdict(settings),
    }
    recipe = Recipe(seed=seed, levels=(settings,), forms=(format,))
    made = _write_splits(root, recipe, images, stamp, workers, progress)
    joined = root / tree.annotations.format("trainval")
    if format == "crowd_pose" and (made or not joined.is_file()):
        _join([root / tree.annotations.format(split) for split in ("train", "val")], joined)
    return made


# -- fixed sets


@dataclass(frozen=True)
class Benchmark:
    """A set whose every byte is fixed.

    levels: settings of the images, in turn, by how crowded they are. sha256: digest of the whole
    set, as `set_digest` computes it.
    """

    version: int
    seed: int
    images: dict[str, int]
    levels: tuple[SceneSettings, ...]
    sha256: str


def _levels(side: int) -> tuple[SceneSettings, ...]:
    """Square images with nobody close to another person, with some, with many, with nearly all."""
    crowding = (((1, 2), 0.0), ((2, 4), 0.2), ((3, 7), 0.4), ((6, 14), 0.8))
    return tuple(
        SceneSettings(
            width=(side, side),
            height=(side, side),
            people=people,
            overlap=overlap,
            figure_height=(0.078, 0.98),
            min_pixels=16,
            unlabelled=0.0,
            crowd=0.0,
            upright=0.75,
        )
        for people, overlap in crowding
    )


BENCHMARKS = {
    "benchmark-v1": Benchmark(
        version=1,
        seed=20_210_619,
        images={"train": 20_000, "val": 2_000},
        levels=_levels(512),
        sha256="a4c9a5a387bdcd0b7b7d1ee41a0801045048a622784c322b514d6e4f192c10ce",
    ),
    "benchmark-v1-small": Benchmark(
        version=1,
        seed=20_210_620,
        images={"train": 2_000, "val": 400},
        levels=_levels(256),
        sha256="81b0c802c2e92194234bc7dc779e3a61197489209822565ff5a1ca3f3bd29621",
    ),
}


def write_benchmark(
    root: str | Path,
    name: str,
    *,
    images: dict[str, int] | None = None,
    workers: int = 1,
    progress: bool = False,
) -> int:
    """Write a set of BENCHMARKS and its manifest below root; return the number of images made.

    The annotations have the forms of COCO and of CrowdPose, for the same image files, and each has
    the person's standing "height" in px. images: how many of train and val, for a part of the set.
    Raises SyntheticError as write_dataset does.
    """
    if name not in BENCHMARKS:
        raise SyntheticError(f"benchmark: {name!r} must be one of {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    images = benchmark.images if images is None else images
    _check_numbers(images, workers, benchmark.seed)
    root = Path(root)
    stamp = {
        "version": benchmark.version,
        "benchmark": name,
        "seed": benchmark.seed,
        "images": images,
        "levels": [asdict(level) for level in benchmark.levels],
    }
    recipe = Recipe(
        seed=benchmark.seed, levels=benchmark.levels, forms=("coco", "crowd_pose"), exact=True
    )
    made = _write_splits(root, recipe, images, stamp, workers, progress)
    if made or not (root / MANIFEST).is_file():
        digests = {path: _sha256(root / path) for path in _files_of(root)}
        manifest = {
            "name": name,
            "version": benchmark.version,
            "seed": benchmark.seed,
            "images": images,
            "sha256": set_digest(digests),
            "files": digests,
        }
        write_text(root / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return made


def set_digest(digests: dict[str, str]) -> str:
    """SHA-256 of the lines "DIGEST  PATH" that sha256sum prints, sorted by path."""
    lines = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify_benchmark(root: str | Path) -> list[str]:
    """Compare the files below root with manifest.json there, and it with the set of that name.

    Returns one line for each difference; an empty list if there is none. Raises SyntheticError if
    there is no manifest.
    """
    root = Path(root)
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        listed: dict[str, str] = dict(manifest["files"].items())
        name, images = str(manifest["name"]), manifest["images"]
        digest = manifest["sha256"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SyntheticError(f"{root / MANIFEST}: cannot be read ({error})") from None
    problems = []
    present = set(_files_of(root))
    for path in sorted(listed.keys() | present):
        if path not in present:
            problems.append(f"{path}: missing")
        elif path not in listed:
            problems.append(f"{path}: not in the manifest")
        elif _sha256(root / path) != listed[path]:
            problems.append(f"{path}: differs from the manifest")
    if set_digest(listed) != digest:
        problems.append(f"{MANIFEST}: its list of files differs from its own sha256")
    expected = BENCHMARKS.get(name)
    if expected is None:
        problems.append(f"{MANIFEST}: {name!r} is not one of {', '.join(BENCHMARKS)}")
    elif images != expected.images:
        problems.append(f"{MANIFEST}: {images} images; {name} has {expected.images}")
    elif expected.sha256 != digest:
        problems.append(f"{MANIFEST}: sha256 {digest}; {name} has {expected.sha256}")
    return problems


def _files_of(root: Path) -> list[str]:
    """Paths of all files below root with "/", hidden ones and the manifest excepted, sorted."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name[0] != ".")
    return sorted({path.relative_to(root).as_posix() for path in paths} - {MANIFEST})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- files that exist already


def _check_numbers(counts: dict[str, int], workers: int, seed: int) -> None:
    for split, count in counts.items():
        if not 1 <= count <= MAX_IMAGES:
            raise SyntheticError(f"{split}: {count} images; it must be from 1 to {MAX_IMAGES}")
    if workers < 1 or seed < 0:
        raise SyntheticError(f"workers: {workers} must be 1 or more, and seed: {seed} 0 or more")


def _claim(root: Path, stamp: Record, annotations: Iterable[Path]) -> None:
    """Write the stamp into an empty folder; SyntheticError if it holds something else."""
    path = root / STAMP
    wanted = json.loads(json.dumps(stamp))
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            found = None
        if found != wanted:
            raise SyntheticError(
                f"{root}: holds a synthetic set with other settings "
                f"({_difference(found, wanted)}); choose another folder, or remove this one"
            )
        return
    for file in annotations:
        if file.exists():
            raise SyntheticError(
                f"{file}: exists and is not part of a synthetic set (no {STAMP} in {root}); "
                "choose another folder"
            )
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """The first setting that differs, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in wanted:
            if found.get(key) != wanted[key]:
                return _difference(found.get(key), wanted[key], key)
    return f"{name or STAMP}: {found} there, {wanted} wanted"


def _is_complete(annotations: Iterable[Path], folder: Path, names: Iterable[str]) -> bool:
    if not all(path.is_file() for path in annotations):
        return False
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    return all(name in there for name in names)


# -- writing


@dataclass(frozen=True)
class Recipe:
    """How images are rendered and labelled.

    Image `index` has the settings levels[index % len(levels)]. forms: formats of the annotations;
    the image files are where the first one has them. exact: masks as run lengths, and heights.
    """

    seed: int
    levels: tuple[SceneSettings, ...]
    forms: tuple[str, ...]
    exact: bool = False


def _write_splits(
    root: Path,
    recipe: Recipe,
    images: dict[str, int],
    stamp: Record,
    workers: int,
    progress: bool,
) -> int:
    """Write the splits that are not complete; return the number of images made."""
    # Imported here: it imports PyTorch, which the processes that draw do without.
    from swahr.progress_bar import ProgressBar

    first = TREES[recipe.forms[0]]
    files = {
        split: [root / TREES[form].annotations.format(split) for form in recipe.forms]
        for split in images
    }
    _claim(root, stamp, [path for paths in files.values() for path in paths])
    made = 0
    with _pool(workers) as mapper:
        for split, count in images.items():
            ids = range(FIRST_ID[split], FIRST_ID[split] + count)
            folder = root / first.images.format(split)
            names = (first.file_name.format(index) for index in ids)
            if _is_complete(files[split], folder, names):
                continue
            job = partial(_write_image, root, split, recipe)
            labels = []
            with ProgressBar(split, count, "image", shown=progress) as bar:
                for image in mapper(job, ids):
                    labels.append(image)
                    bar.update()
            _write_annotations(files[split], recipe, labels)
            made += count
    return made


@contextmanager
def _pool(workers: int) -> Iterator[Any]:
    """A map function over processes that keeps the order."""
    if workers == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_start_worker) as pool:
        yield partial(pool.imap, chunksize=8)


def _start_worker() -> None:
    """One thread in each process. Ctrl-C goes to all of them, and the main process ends them."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def encode_jpeg(image: Image) -> bytes:
    """An RGB image (H, W, 3) as a JPEG file with the quality of these sets."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], JPEG_OPTIONS)
    return data.tobytes()


def _write_image(
    root: Path, split: str, recipe: Recipe, index: int
) -> list[tuple[Record, list[Record]]]:
    """Write one image; return for each form its entry of "images" and its annotations."""
    settings = recipe.levels[index % len(recipe.levels)]
    image, people = render_scene(recipe.seed, index, settings, ALL_JOINTS)
    first = TREES[recipe.forms[0]]
    path = root / first.images.format(split) / first.file_name.format(index)
    write_bytes(path, encode_jpeg(image), durable=False)
    labels = []
    for form in recipe.forms:
        tree = TREES[form]
        joints = joint_indices(tree.skeleton)
        own = [person._replace(keypoints=person.keypoints[joints]) for person in people]
        entry: Record = {
            "file_name": path.relative_to(root / tree.images.format(split)).as_posix(),
            "id": index,
            "height": image.shape[0],
            "width": image.shape[1],
        }
        if form == "crowd_pose":
            entry["crowdIndex"] = crowd_index(own)
        annotate = crowd_pose_annotation
        if form == "coco":
            annotate = exact_annotation if recipe.exact else coco_annotation
        annotations = []
        for i, person in enumerate(own):
            ids = {"image_id": index, "category_id": 1, "id": index * MAX_PEOPLE_PER_IMAGE + i}
            height = {"height": person.height} if recipe.exact else {}
            annotations.append({**annotate(person), **ids, **height})
        labels.append((entry, annotations))
    return labels


def _write_annotations(
    paths: Sequence[Path],
    recipe: Recipe,
    labels: Sequence[Sequence[tuple[Record, list[Record]]]],
) -> None:
    """Write one file for each form; labels: what _write_image returned for each image."""
    for i, (path, form) in enumerate(zip(paths, recipe.forms, strict=True)):
        data = {
            "info": {"description": "synthetic people"},
            "licenses": [],
            "images": [forms[i][0] for forms in labels],
            "annotations": [annotation for forms in labels for annotation in forms[i][1]],
            "categories": [category(TREES[form].skeleton)],
        }
        write_text(path, json.dumps(data))


def _join(parts: Sequence[Path], path: Path) -> None:
    """Write the annotations of several files as one file. Raises SyntheticError for a damaged
    one.
    """
    joined, *others = map(_read_part, parts)
    for other in others:
        for key in ("images", "annotations"):
            joined[key] += other[key]
    write_text(path, json.dumps(joined))


def _read_part(path: Path) -> Record:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SyntheticError(
            f"{path}: cannot be read ({error}); remove it to have it made again"
        ) from None
    keys = ("images", "annotations")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in keys):
        raise SyntheticError(
            f"{path}: has no lists images and annotations; remove it to have it made again"
        )
    return data


# -- annotations


def category(skeleton: Skeleton) -> Record:
    """The entry of "categories"; limbs count keypoints from 1, as in COCO."""
    return {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }


def coco_annotation(person: Person) -> Record:
    """Keypoints and segmentation, with the segmentation's area and box.

    The segmentation is a list of polygons; for a crowd, uncompressed run lengths. OpenCV versions
    before 4.14 trace a few polygons with slightly different points.
    """
    height, width = person.mask.shape
    segmentation = _run_lengths(person.mask) if person.crowd else _polygons(person.mask)
    encoded = rle.frPyObjects(segmentation, height, width)
    encoded = encoded if person.crowd else rle.merge(encoded)
    return {
        "segmentation": segmentation,
        "area": int(rle.area(encoded)),
        "bbox": rle.toBbox(encoded).tolist(),
        "iscrowd": int(person.crowd),
        **keypoint_fields(person),
    }


def exact_annotation(person: Person) -> Record:
    """As coco_annotation, but the segmentation is the mask itself, as compressed run lengths. All
    versions of OpenCV give the same.
    """
    encoded = rle.encode(np.asfortranarray(person.mask.view(np.uint8)))
    return {
        "segmentation": {"size": list(person.mask.shape), "counts": encoded["counts"].decode()},
        "area": int(rle.area(encoded)),
        "bbox": rle.toBbox(encoded).tolist(),
        "iscrowd": int(person.crowd),
        **keypoint_fields(person),
    }


def crowd_pose_annotation(person: Person) -> Record:
    """Keypoints, and the box around all of the person that is inside the image."""
    return {"bbox": list(person.box), "iscrowd": 0, **keypoint_fields(person)}


def keypoint_fields(person: Person) -> Record:
    """COCO's "num_keypoints" and "keypoints" [x, y, v, x, y, v, ...]."""
    flat = [value for x, y, flag in person.keypoints.tolist() for value in (x, y, int(flag))]
    return {"num_keypoints": int((person.keypoints[:, 2] > 0).sum()), "keypoints": flat}


def crowd_index(people: Sequence[Person]) -> float:
    """How crowded an image is (CrowdPose, Li et al., CVPR 2019).

    For each person, the number of other people's joints in its box over the number of its own
    joints there; the mean over people, at most 1. People without keypoints do not count.
    """
    labelled = [person for person in people if (person.keypoints[:, 2] > 0).any()]
    if not labelled:
        return 0.0
    joints = np.stack([person.keypoints for person in labelled])  # (P, K, 3)
    x, y, w, h = np.array([person.box for person in labelled], np.float64).T[:, :, None, None]
    inside = (
        (joints[..., 0] >= x)
        & (joints[..., 0] <= x + w)
        & (joints[..., 1] >= y)
        & (joints[..., 1] <= y + h)
        & (joints[..., 2] > 0)
    ).sum(axis=2)  # (boxes, people)
    own = np.diagonal(inside)
    ratios = (inside.sum(axis=1) - own) / np.maximum(own, 1)
    return round(min(1.0, float(ratios.mean())), 4)


def _run_lengths(mask: NDArray[np.bool_]) -> Record:
    """COCO's uncompressed form: lengths of alternating runs of 0 and 1 down the columns, starting
    with 0.
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"counts": np.diff(edges, prepend=0).tolist(), "size": list(mask.shape)}


def _polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Outlines [x, y, x, y, ...] of a mask that is not empty.

    They are traced at twice its size, so that a line of one pixel has an area, and run a quarter of
    a pixel inside the pixels' edges.
    """
    x0, y0, w, h = cv2.boundingRect(mask.view(np.uint8))
    doubled = cv2.resize(
        mask[y0 : y0 + h, x0 : x0 + w].view(np.uint8),
        (2 * w, 2 * h),
        interpolation=cv2.INTER_NEAREST,
    )
    outlines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    simple = [cv2.approxPolyDP(outline, 1.0, True).reshape(-1, 2) for outline in outlines]
    kept = [points for points in simple if len(points) >= 3]
    if not kept:
        kept = [np.array([(0, 0), (2 * w - 1, 0), (2 * w - 1, 2 * h - 1), (0, 2 * h - 1)])]
    return [((points * 2 + 1) / 4 + [x0, y0]).ravel().tolist() for points in kept]
