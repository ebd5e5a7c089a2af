"""Scenes: their settings, the people in them, the image, and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.skeleton import COCO, Skeleton
from swahr.synthetic.background import (
    NUM_TEXTURES,
    TEXTURE_SIZE,
    background,
    distractors,
    shade,
    texture,
)
from swahr.synthetic.figure import (
    FACE,
    POINT,
    POINTS,
    Figure,
    face_visible,
    sample_figure,
    to_pixels,
)
from swahr.synthetic.outfit import Outfit, sample_outfit
from swahr.synthetic.paint import figure_shapes, joint_visible
from swahr.synthetic.shapes import SHIFT, Array, Image, fixed, paint

JOINTS = POINTS[:19]  # points of a figure that can be keypoints of a skeleton
MIN_VISIBLE = 0.2  # people of whom a smaller share is visible get no keypoints
MAX_PEOPLE = 200
MIN_IMAGE_SIDE = 16  # px
# Smallest value of the settings that are ranges; the others, but two, are probabilities.
_RANGE_MIN = {
    "width": MIN_IMAGE_SIDE,
    "height": MIN_IMAGE_SIDE,
    "people": 0,
    "figure_height": 0.01,
    "distractors": 0,
}


class SyntheticError(ValueError):
    """Settings or a folder with which no synthetic set can be made; the message names the problem
    and the values that are allowed.
    """


@dataclass(frozen=True)
class SceneSettings:
    """What a scene contains. Ranges are (min, max); other fractions are probabilities, 0 to 1."""

    width: tuple[int, int] = (384, 640)  # of the image, pixels
    height: tuple[int, int] = (320, 544)
    people: tuple[int, int] = (1, 10)  # in an image, besides crowds
    figure_height: tuple[float, float] = (0.05, 1.0)  # standing, in image heights; log-uniform
    min_pixels: int = 25  # smallest standing height
    overlap: float = 0.35  # a person stands close to another one
    cut_off: float = 0.2  # the image's border may cut a person
    unlabelled: float = 0.1  # a person has no keypoints
    crowd: float = 0.12  # an image has a crowd region
    distractors: tuple[int, int] = (2, 12)  # objects in an image
    in_front: float = 0.2  # one of them stands before the people
    back: float = 0.3  # a person is seen from behind
    turn: float = 90.0  # largest angle in degrees by which people are turned sideways
    upright: float = 0.6  # a person stands or walks
    marked: float = 0.5  # a person has warm marks on the left, cool ones on the right
    clutter: float = 0.9  # a wall has a pattern
    camera: float = 0.5  # an image is blurred, noisy, too dark or too bright

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _RANGE_MIN:
                least = _RANGE_MIN[field.name]
                if not least <= value[0] <= value[1]:
                    raise SyntheticError(
                        f"{field.name}: {value} must be (min, max), with {least} <= min <= max"
                    )
            elif field.name not in ("min_pixels", "turn") and not 0 <= value <= 1:
                raise SyntheticError(f"{field.name}: {value} must be between 0 and 1")
        if self.people[1] > MAX_PEOPLE:
            raise SyntheticError(f"people: {self.people} must not exceed {MAX_PEOPLE}")
        if self.min_pixels < 8:
            raise SyntheticError(f"min_pixels: {self.min_pixels} must be at least 8")


PRESETS = {
    "benchmark": SceneSettings(),
    "calm": SceneSettings(
        width=(256, 320),
        height=(224, 288),
        people=(1, 3),
        figure_height=(0.5, 0.95),
        overlap=0.05,
        cut_off=0.08,
        unlabelled=0.03,
        crowd=0.0,
        distractors=(0, 3),
        in_front=0.0,
        back=0.25,
        turn=40.0,
        upright=0.9,
        marked=1.0,
        clutter=0.3,
        camera=0.15,
    ),
}


class Person(NamedTuple):
    """The label of one person.

    keypoints: (K, 3) x, y in pixels and COCO's visibility (0 not labelled, 1 hidden, 2 visible).
    mask: (H, W) bool, its visible pixels. box: (x, y, w, h) around all of it that is inside the
    image, hidden parts included. crowd: a region of many people. height: standing height in px; 0
    for a crowd.
    """

    keypoints: Array
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    crowd: bool = False
    height: float = 0.0


def render_scene(
    seed: int, index: int, settings: SceneSettings, skeleton: Skeleton = COCO
) -> tuple[Image, list[Person]]:
    """The image (H, W, 3) uint8 RGB with this index in the set of this seed, and its people.

    People are in order from the farthest to the nearest. The result depends on the arguments only,
    and is the same on every machine. Raises SyntheticError if the skeleton has a joint that figures
    do not have.
    """
    joints = joint_indices(skeleton)
    rng = np.random.default_rng([seed, index])
    width = int(rng.integers(settings.width[0], settings.width[1] + 1))
    height = int(rng.integers(settings.height[0], settings.height[1] + 1))
    image, horizon = background(rng, width, height, settings.clutter)
    distractors(rng, image, int(rng.integers(settings.distractors[0], settings.distractors[1] + 1)))
    actors = sample_actors(rng, width, height, horizon, settings)
    looks = [sample_look(rng, settings.marked) for _ in actors]
    owner, drawn = draw_actors(image, actors, looks)
    if rng.random() < settings.in_front:
        distractors(rng, image, 1, owner)
    if rng.random() < settings.camera:
        _apply_camera(rng, image)
    crowd = _crowd_label(actors, owner, len(joints))
    people = [
        label_person(actor, drawn[i], owner == i + 1, joints)
        for i, actor in enumerate(actors)
        if not actor.crowd
    ]
    return image, [person for person in (crowd, *people) if person is not None]


def joint_indices(skeleton: Skeleton) -> list[int]:
    """Indices in POINTS of the skeleton's keypoints; SyntheticError if one is not in JOINTS."""
    for name in skeleton.keypoints:
        if name not in JOINTS:
            raise SyntheticError(
                f"skeleton {skeleton.name}: synthetic people have no {name!r}; "
                f"they have {', '.join(JOINTS)}"
            )
    return [POINT[name] for name in skeleton.keypoints]


# -- positions of people


class Actor(NamedTuple):
    """A figure at a position in the image. size: standing height in px. points: (len(POINTS), 2)
    px. labelled: it gets keypoints. crowd: it is part of the crowd region.
    """

    figure: Figure
    size: float
    points: Array
    labelled: bool
    crowd: bool


def sample_actors(
    rng: np.random.Generator, width: int, height: int, horizon: int, settings: SceneSettings
) -> list[Actor]:
    """Draw people, from the farthest (mostly the smallest) to the nearest. A crowd is behind all
    others.
    """
    actors: list[Actor] = []
    boxes: list[Array] = []
    smallest = max(settings.min_pixels / height, settings.figure_height[0])
    largest = max(smallest, settings.figure_height[1])
    for _ in range(int(rng.integers(settings.people[0], settings.people[1] + 1))):
        upright = rng.random() < settings.upright
        back = rng.random() < settings.back
        figure = sample_figure(rng, upright=upright, back=back, turn=settings.turn)
        size = height * float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        partner = None
        if boxes and rng.random() < settings.overlap:
            partner = boxes[int(rng.integers(len(boxes)))]
            near = float((partner[3] - partner[1]) * rng.uniform(0.8, 1.25))
            size = min(max(near, smallest * height), largest * height)
        origin = _sample_origin(
            rng, figure, size, (width, height), horizon, settings.cut_off, boxes, partner
        )
        points = to_pixels(figure, size, origin)
        boxes.append(np.concatenate([points.min(axis=0), points.max(axis=0)]))
        actors.append(Actor(figure, size, points, rng.random() >= settings.unlabelled, False))
    distances = [round(actor.size * rng.uniform(0.85, 1.15), 6) for actor in actors]
    order = np.argsort(distances, kind="stable")
    crowd = _sample_crowd(rng, width, height, settings) if rng.random() < settings.crowd else []
    return crowd + [actors[i] for i in order]


def _sample_origin(
    rng: np.random.Generator,
    figure: Figure,
    size: float,
    image_size: tuple[int, int],
    horizon: int,
    cut_off: float,
    boxes: list[Array],
    partner: Array | None,
) -> Array:
    """Draw the pixel of the pelvis: beside the partner's box, or where the person covers the others
    least.

    The person is inside the image unless the border may cut it. Five out of six people stand on the
    ground, the larger the nearer.
    """
    low = figure.points[:, :2].min(axis=0) * size
    high = figure.points[:, :2].max(axis=0) * size
    margin = 0.04 * size
    outside = (high - low) * (0.5 if rng.random() < cut_off else 0.0) - margin
    start = -low - outside
    end = np.array(image_size) - 1 - high + outside
    middle = (start + end) / 2
    start = np.minimum(start, middle)
    end = np.maximum(end, middle)  # a person too large for the image is centred
    if partner is not None:
        side = 1 if rng.random() < 0.5 else -1
        apart = np.array([side * rng.uniform(0.08, 0.35), rng.uniform(-0.08, 0.08)]) * size
        return np.clip((partner[:2] + partner[2:]) / 2 + apart - (low + high) / 2, start, end)
    candidates = start + rng.uniform(0, 1, (8, 2)) * (end - start)
    if rng.random() < 5 / 6:
        nearness = min(1.0, size / image_size[1])
        ground = horizon + (image_size[1] - horizon) * nearness * rng.uniform(0.6, 1.1, 8)
        candidates[:, 1] = np.clip(ground - high[1], start[1], end[1])
    if not boxes:
        return candidates[0]
    others = np.stack(boxes)
    first = np.maximum(candidates[:, None] + low, others[:, :2])
    last = np.minimum(candidates[:, None] + high, others[:, 2:])
    covered = np.prod(np.maximum(last - first, 0), axis=2).sum(axis=1)
    return candidates[int(np.argmin(np.round(covered)))]


def _sample_crowd(
    rng: np.random.Generator, width: int, height: int, settings: SceneSettings
) -> list[Actor]:
    """Draw 8 to 16 small people side by side."""
    size = max(settings.min_pixels, height * rng.uniform(0.07, 0.16))
    left = width * rng.uniform(0, 0.6)
    base = height * rng.uniform(0.25, 0.7)
    count = int(rng.integers(8, 17))
    actors = []
    for i in range(count):
        figure = sample_figure(rng, upright=True, back=rng.random() < 0.5, turn=90)
        right = 0.3 * (i // 2) + rng.uniform(0, 0.2)
        down = 0.25 * (i % 2) + rng.uniform(-0.05, 0.05)
        tall = size * rng.uniform(0.85, 1.15)
        points = to_pixels(figure, tall, (left + size * right, base + size * down))
        actors.append(Actor(figure, tall, points, False, True))
    return sorted(actors, key=lambda actor: round(float(actor.points[0, 1]), 6))


# -- drawing


class Look(NamedTuple):
    """Clothes, and the texture over them with its start (row, column)."""

    outfit: Outfit
    texture_start: tuple[int, int]
    texture_kind: int


class Drawn(NamedTuple):
    """What drawing a person tells about it.

    area: pixels of the whole figure inside the image. box: (x, y, w, h) around them. on_top:
    (len(POINTS),) points that the figure itself does not hide.
    """

    area: int
    box: tuple[int, int, int, int]
    on_top: NDArray[np.bool_]


def sample_look(rng: np.random.Generator, marked: float) -> Look:
    """Draw the look of a person. marked: probability of marks that tell left from right."""
    outfit = sample_outfit(rng, marked=rng.random() < marked)
    start = (int(rng.integers(TEXTURE_SIZE)), int(rng.integers(TEXTURE_SIZE)))
    return Look(outfit, start, int(rng.integers(NUM_TEXTURES)))


def draw_actors(
    image: Image, actors: Sequence[Actor], looks: Sequence[Look]
) -> tuple[NDArray[np.int16], list[Drawn]]:
    """Paint people on image (H, W, 3) in place, the first one farthest back.

    Returns owner (H, W), the 1-based index of the person on top of each pixel (0: nobody), and what
    was drawn of each.
    """
    owner = np.zeros(image.shape[:2], np.int16)
    drawn = [
        _draw_actor(image, owner, actor, look, i + 1)
        for i, (actor, look) in enumerate(zip(actors, looks, strict=True))
    ]
    return owner, drawn


def _draw_actor(
    image: Image, owner: NDArray[np.int16], actor: Actor, look: Look, label: int
) -> Drawn:
    """Paint one person over the image, and its label into owner."""
    parts = np.zeros(owner.shape, np.uint8)
    _draw_shadow(image, actor)
    paint(figure_shapes(actor.figure, look.outfit, actor.points, actor.size), image, parts)
    x, y, w, h = (int(side) for side in cv2.boundingRect(parts))
    window = parts[y : y + h, x : x + w]
    if w and h:
        tone = texture(look.texture_kind)
        shade(image[y : y + h, x : x + w], window, tone, look.texture_start)
        owner[y : y + h, x : x + w][window > 0] = label
    return Drawn(cv2.countNonZero(parts), (x, y, w, h), joint_visible(actor.points, parts))


def _draw_shadow(image: Image, actor: Actor) -> None:
    """Darken the ground below the feet."""
    names = ("left_toe", "right_toe", "left_ankle", "right_ankle")
    feet = actor.points[[POINT[name] for name in names]]
    wide = float(np.ptp(feet[:, 0])) / 2 + 0.07 * actor.size
    low = float(feet[:, 1].max()) + 0.015 * actor.size
    middle = float(feet[:, 0].mean())
    x0 = max(0, int(middle - wide) - 2)
    y0 = max(0, int(low - 0.05 * actor.size) - 2)
    view = image[y0 : int(low + 0.05 * actor.size) + 3, x0 : int(middle + wide) + 3]
    if view.size:
        layer = view.copy()
        center, axes = fixed([(middle - x0, low - y0), (wide, 0.03 * actor.size)]).tolist()
        cv2.ellipse(layer, center, axes, 0, 0, 360, (20, 20, 26), -1, cv2.LINE_AA, SHIFT)
        cv2.addWeighted(view, 0.625, layer, 0.375, 0, view)


def _apply_camera(rng: np.random.Generator, image: Image) -> None:
    """Blur the image, add sensor noise, or expose it wrongly; in place."""
    kind = int(rng.integers(3))
    if kind == 0:
        image[:] = cv2.GaussianBlur(image, (3, 3), 0)
    elif kind == 1:
        noise = rng.integers(0, 33, image.shape, dtype=np.uint8)
        image[:] = cv2.subtract(cv2.add(image, noise), np.full_like(image, 16))
    else:
        gain = int(rng.integers(80, 177))
        offset = int(rng.integers(-20, 21))
        image[:] = np.clip((np.arange(256) * gain) // 128 + offset, 0, 255).astype(np.uint8)[image]


# -- labels


def label_person(
    actor: Actor, drawn: Drawn, mask: NDArray[np.bool_], joints: Sequence[int]
) -> Person | None:
    """The label of a person whose visible pixels are mask (H, W); None if there are none.

    joints: indices in POINTS of the keypoints.
    """
    visible = int(np.count_nonzero(mask))
    if not visible:
        return None
    keypoints = np.zeros((len(joints), 3))
    if actor.labelled and visible >= MIN_VISIBLE * drawn.area:
        keypoints = _point_labels(actor, drawn, mask)[list(joints)]
    return Person(keypoints, mask, drawn.box, height=round(actor.size, 2))


def _crowd_label(
    actors: Sequence[Actor], owner: NDArray[np.int16], num_joints: int
) -> Person | None:
    """The crowd as one region; None if nothing of it is visible."""
    mask = np.isin(owner, [i + 1 for i, actor in enumerate(actors) if actor.crowd])
    if not mask.any():
        return None
    x, y, w, h = (int(side) for side in cv2.boundingRect(mask.view(np.uint8)))
    return Person(np.zeros((num_joints, 3)), mask, (x, y, w, h), crowd=True)


def _point_labels(actor: Actor, drawn: Drawn, mask: NDArray[np.bool_]) -> Array:
    """(len(POINTS), 3): x, y and visibility.

    1 where another person or the own body hides the point; all 0 outside the image and for points
    of the face that the head hides.
    """
    height, width = mask.shape
    points = np.round(actor.points, 2)
    x, y = np.round(points).astype(int).T
    inside = (points >= 0).all(axis=1) & (x < width) & (y < height)
    on_top = np.zeros(len(points), bool)
    on_top[inside] = mask[y[inside], x[inside]]
    flags = np.where(inside, np.where(drawn.on_top & on_top, 2, 1), 0)
    flags[[POINT[name] for name in FACE]] *= face_visible(actor.figure)
    labels: Array = np.column_stack([points, flags]) * (flags > 0)[:, None]
    return labels
