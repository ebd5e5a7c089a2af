"""Skeletons: keypoint names, mirror pairs, OKS sigmas, limbs, and the order of grouping.

All differences between sets of keypoints are data in a `Skeleton`; no other module has the number
or the names of joints. Your own sets are YAML files (see `load_skeleton`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import yaml

from swahr.exported import ExportedError, describe_exported, is_exported
from swahr.files import why_unreadable
from swahr.words import counted

CENTER = "center"  # the keypoint that with_center adds
TYPICAL_SIGMA = 0.05  # between COCO's 0.025 (eyes) and 0.107 (hips)


class SkeletonError(ValueError):
    """A description that is not a valid skeleton. The message names the entry and what is
    expected.
    """


class MissingSigmas(SkeletonError):
    """A file that has keypoints and no sigmas."""


@dataclass(frozen=True)
class Skeleton:
    """A set of K keypoints.

    keypoints: K names, in the order of the annotation files.
    flip_pairs: pairs of 0-based indices that are swapped when the image is mirrored.
    sigmas: K standard deviations of the object keypoint similarity (COCO keypoint evaluation), as
    fractions of the person's size.
    limbs: pairs of indices that are connected by a line when a person is drawn.
    grouping_order: the K indices in the order in which joints are assigned to people; () stands for
    0, 1, 2, ...
    colors: K colours (r, g, b) of 0 to 255 that keypoints are drawn in; () for a hue of its own for
    each person.
    """

    name: str
    keypoints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    limbs: tuple[tuple[int, int], ...] = ()
    grouping_order: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.grouping_order:
            object.__setattr__(self, "grouping_order", tuple(range(len(self.keypoints))))
        for problem in self._problems():
            raise SkeletonError(f"skeleton {self.name!r}: {problem}")

    def _problems(self) -> Sequence[str]:
        count = len(self.keypoints)
        found = []
        if not count:
            found.append("keypoints is empty; it lists the names of the joints")
        if len(set(self.keypoints)) != count:
            found.append("keypoints has a name twice")
        if not all(name.strip() for name in self.keypoints):
            found.append("keypoints has an empty name")
        if len(self.sigmas) != count:
            given = counted(len(self.sigmas), "value")
            found.append(f"sigmas has {given}; it needs {count}, one for each keypoint")
        for name, sigma in zip(self.keypoints, self.sigmas):
            if not 0 < sigma < inf:
                found.append(f"sigmas: {sigma:g} of {name!r} must be above 0 and finite")
        if sorted(self.grouping_order) != list(range(count)):
            found.append(f"grouping_order must hold each index from 0 to {count - 1} once")
        if len(self.colors) not in (0, count):
            given = counted(len(self.colors), "value")
            found.append(f"colors has {given}; it needs {count}, or none")
        swapped = [i for pair in self.flip_pairs for i in pair]
        if len(set(swapped)) != len(swapped):
            found.append("flip_pairs names a keypoint twice")
        outside = [
            i for i in (*swapped, *(i for limb in self.limbs for i in limb)) if not 0 <= i < count
        ]
        if outside:
            found.append(
                f"flip_pairs or limbs name keypoint {outside[0]}; indices run from 0 to {count - 1}"
            )
        if any(a == b for a, b in self.limbs):
            found.append("limbs has a line from a keypoint to itself")
        return found

    @property
    def num_keypoints(self) -> int:
        """K, the number of keypoints."""
        return len(self.keypoints)

    @cached_property
    def flip_index(self) -> tuple[int, ...]:
        """K indices: channel i of a mirrored image is channel flip_index[i] of the image."""
        index = list(range(self.num_keypoints))
        for left, right in self.flip_pairs:
            index[left], index[right] = right, left
        return tuple(index)

    def trained(self, with_center: bool) -> Skeleton:
        """The skeleton of the network's maps: with_center as DATASET.WITH_CENTER."""
        return self.with_center() if with_center else self

    def with_center(self) -> Skeleton:
        """The skeleton with the centre of the joints as a further keypoint.

        It is the last keypoint, and the first one in grouping. Raises SkeletonError if a keypoint
        has its name already.
        """
        if CENTER in self.keypoints:
            raise SkeletonError(
                f"skeleton {self.name!r}: {CENTER} is the name of the added centre "
                "(DATASET.WITH_CENTER); give the keypoint another name, or set WITH_CENTER False"
            )
        last = self.num_keypoints
        return replace(
            self,
            keypoints=(*self.keypoints, CENTER),
            sigmas=(*self.sigmas, max(self.sigmas)),
            grouping_order=(last, *self.grouping_order),
            colors=(*self.colors, *self.colors[:1]),
        )


COCO = Skeleton(
    name="coco",
    keypoints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
    limbs=(
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
        (5, 6),
        (5, 7),
        (7, 9),
        (6, 8),
        (8, 10),
        (5, 11),
        (6, 12),
        (11, 12),
        (11, 13),
        (13, 15),
        (12, 14),
        (14, 16),
    ),
    grouping_order=(0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16),
)

CROWD_POSE = Skeleton(
    name="crowd_pose",
    keypoints=(
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
        "head",
        "neck",
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    sigmas=(
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
        0.079,
        0.079,
    ),
    limbs=(
        (12, 13),
        (13, 0),
        (13, 1),
        (0, 2),
        (2, 4),
        (1, 3),
        (3, 5),
        (0, 6),
        (1, 7),
        (6, 7),
        (6, 8),
        (8, 10),
        (7, 9),
        (9, 11),
    ),
    # The published code uses the indices of COCO's order here. The results depend on it.
    grouping_order=(0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, CROWD_POSE)}
# The published names of data sets (DATASET.DATASET and DATASET.DATASET_TEST) and their skeletons.
SKELETON_OF = {
    "coco": "coco",
    "coco_kpt": "coco",
    "crowd_pose": "crowd_pose",
    "crowd_pose_kpt": "crowd_pose",
}


def dataset_names(skeleton: Skeleton) -> tuple[str, str]:
    """The names of the data sets to train and to test on that have this skeleton.

    They are the published ones for the published skeletons. For others both are the skeleton's
    name, as the name of a folder, so that the data set has COCO's folders and scoring.
    """
    known = SKELETONS.get(skeleton.name)
    if known and known.keypoints == skeleton.keypoints:
        return f"{known.name}_kpt", known.name
    name = re.sub(r"[^\w.-]+", "_", skeleton.name).strip(".") or "own"
    if name in SKELETON_OF:
        name = f"own_{name}"
    return name, name


def get_skeleton(name: str) -> Skeleton:
    """A skeleton by its name ("coco", "crowd_pose") or by the path of a YAML file, or of an
    exported network (.onnx), which holds its skeleton.

    Raises SkeletonError if it is neither.
    """
    if name in SKELETONS:
        return SKELETONS[name]
    path = Path(name)
    problem = why_unreadable(path)
    if not problem:
        return load_skeleton(name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        raise SkeletonError(f"skeleton {name}: {problem}")
    raise SkeletonError(
        f"unknown skeleton {name!r}: "
        f"it is one of {', '.join(SKELETONS)}, or the path of a YAML file"
    )


def load_skeleton(path: str | Path, default_sigma: float | None = None) -> Skeleton:
    """Read a skeleton from a YAML file, or from an exported network (.onnx).

    Entries: keypoints (names), sigmas, and optionally name, flip_pairs, limbs and grouping_order,
    whose keypoints are given by name or by index, and colors ("#rrggbb" for each keypoint).
    default_sigma: of all keypoints where the file has no sigmas; None where it must have them.
    Raises SkeletonError, which names the file and the entry, if it is not such a description.
    """
    try:
        text = describe_exported(path).skeleton if is_exported(path) else Path(path).read_bytes()
        data = yaml.load(text, _Loader)
    except ExportedError:
        raise
    except Exception as error:  # PyYAML raises other types for wrong values and for deep nesting
        raise SkeletonError(_why_no_yaml(path, error)) from None
    if not isinstance(data, dict) or "keypoints" not in data:
        raise SkeletonError(f"{path}: a skeleton needs the entries keypoints and sigmas")
    if "sigmas" not in data and default_sigma is None:
        raise MissingSigmas(
            f"{path}: a skeleton needs the entry sigmas, a number for each keypoint; `swahr check "
            f"ANNOTATIONS IMAGES --skeleton {path} --suggest-sigmas` prints it"
        )
    unknown = sorted(str(key) for key in set(data) - ENTRIES)
    if unknown:
        raise SkeletonError(f"{path}: unknown entry {unknown[0]!r}")
    entries = _Entries(path, data)
    parts: dict[str, Any] = {
        "keypoints": tuple(entries.names),
        "sigmas": entries.numbers("sigmas", default_sigma),
        "flip_pairs": entries.pairs("flip_pairs"),
        "limbs": entries.pairs("limbs"),
        "grouping_order": entries.indices("grouping_order"),
        "colors": entries.colors("colors"),
    }
    try:
        return Skeleton(name=entries.name("name") or Path(path).stem, **parts)
    except SkeletonError as error:
        raise SkeletonError(f"{path}: {error}") from None


def _why_no_yaml(path: str | Path, error: Exception) -> str:
    """The error of reading a file in one line, with the line of the file where it is known."""
    mark = getattr(error, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark else f"{path}"
    reason = getattr(error, "problem", None) or str(error) or type(error).__name__
    return f"{place}: cannot be read as YAML ({str(reason).splitlines()[0]})"


def skeleton_yaml(skeleton: Skeleton) -> str:
    """A skeleton as the text of a file that `load_skeleton` reads."""
    names = skeleton.keypoints
    entries = {
        "name": skeleton.name,
        "keypoints": list(names),
        "sigmas": list(skeleton.sigmas),
        "flip_pairs": [[names[a], names[b]] for a, b in skeleton.flip_pairs],
        "limbs": [[names[a], names[b]] for a, b in skeleton.limbs],
        "grouping_order": [names[k] for k in skeleton.grouping_order],
    }
    if skeleton.colors:
        entries["colors"] = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in skeleton.colors]
    return yaml.safe_dump(entries, default_flow_style=None, sort_keys=False, width=96)


ENTRIES = {"name", "keypoints", "sigmas", "flip_pairs", "limbs", "grouping_order", "colors"}


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Entries:
    """The entries of a skeleton file. Every method raises SkeletonError for an invalid entry."""

    def __init__(self, path: str | Path, data: dict[str, Any]) -> None:
        self.path = path
        self.data = data
        names = self._list("keypoints")
        self.names = [self._text("keypoints", name) for name in names]

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise SkeletonError(f"{self.path}: {key}: {value!r} is no name; put it in quotes")
        return str(value)

    def _list(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise SkeletonError(f"{self.path}: {key} must be a list, not {value!r}")
        return value

    def _index(self, key: str, value: Any) -> int:
        if value in self.names:
            return self.names.index(value)
        if isinstance(value, int) and str(value) in self.names:
            raise SkeletonError(
                f"{self.path}: {key}: {value} is an index and the name of a keypoint; put it in "
                "quotes for the name"
            )
        is_index = isinstance(value, int) and not isinstance(value, bool)
        if is_index and 0 <= value < len(self.names):
            return value
        last = len(self.names) - 1
        raise SkeletonError(
            f"{self.path}: {key}: {value!r} is neither a keypoint's name "
            f"nor an index from 0 to {last}"
        )

    def name(self, key: str) -> str:
        """A name; '' where there is no such entry, or nothing in it."""
        value = self.data.get(key)
        name = "" if value is None else self._text(key, value)
        return name if name.strip() else ""

    def indices(self, key: str) -> tuple[int, ...]:
        """Keypoints as indices."""
        return tuple(self._index(key, value) for value in self._list(key))

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        """Pairs of keypoints as indices."""
        pairs = []
        for pair in self._list(key):
            if not isinstance(pair, list) or len(pair) != 2:
                raise SkeletonError(f"{self.path}: {key}: {pair!r} is not a pair of keypoints")
            pairs.append((self._index(key, pair[0]), self._index(key, pair[1])))
        return tuple(pairs)

    def numbers(self, key: str, default: float | None = None) -> tuple[float, ...]:
        """The numbers of an entry; the default for each keypoint where there is no such entry."""
        if default is not None and key not in self.data:
            return (default,) * len(self.names)
        values = self._list(key)
        try:
            return tuple(float(str(value)) for value in values)  # "True" is none
        except ValueError:
            raise SkeletonError(
                f"{self.path}: {key} must be a list of numbers, not {values!r}"
            ) from None

    def colors(self, key: str) -> tuple[tuple[int, int, int], ...]:
        return tuple(self._color(key, value) for value in self._list(key))

    def _color(self, key: str, value: Any) -> tuple[int, int, int]:
        match = re.fullmatch(r"#([0-9a-fA-F]{6})", value) if isinstance(value, str) else None
        if match is None:
            raise SkeletonError(f"{self.path}: {key}: {value!r} is not a colour such as '#ff8000'")
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue
