"""A scene: how many people, how large, where, which of them are labelled, and the picture with its labels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.data.synthetic.background import NUM_TEXTURES, TILE, background, distractors, shade, texture
from swahr.data.synthetic.figure import FACE, POINT, Figure, face_visible, sample_figure
from swahr.data.synthetic.outfit import sample_outfit
from swahr.data.synthetic.paint import figure_shapes, joint_visible, place
from swahr.data.synthetic.shapes import Array, Image, paint
from swahr.skeleton import COCO, Skeleton

MIN_VISIBLE = 0.2     # people of whom less than this share shows are not labelled


class SyntheticError(ValueError):
    """Settings or a folder that no synthetic set can be made with; the message says which and what would be right."""


@dataclass(frozen=True)
class SceneSettings:
    """What synthetic scenes are like. Ranges are (least, most); shares are of people or of images, 0 to 1."""

    width: tuple[int, int] = (384, 640)                # of the image, pixels
    height: tuple[int, int] = (320, 544)
    people: tuple[int, int] = (1, 10)                  # in an image, besides crowds
    figure_height: tuple[float, float] = (0.05, 1.0)   # of a standing person, share of the image's height; log-uniform
    min_pixels: int = 25                               # nobody is smaller
    overlap: float = 0.35                              # share of people who stand close to another one
    cut_off: float = 0.2                               # share of people whom the image's border may cut
    unlabelled: float = 0.1                            # share of people without keypoints
    crowd: float = 0.12                                # share of images with a crowd region
    distractors: tuple[int, int] = (2, 12)             # things in an image
    in_front: float = 0.2                              # share of images where one of them stands before the people
    back: float = 0.3                                  # share of people seen from behind
    turn: float = 90.0                                 # degrees that people are turned sideways at most
    upright: float = 0.6                               # share of people who stand or walk
    marked: float = 0.5                                # share of people with warm marks on the left and cool ones on the right
    clutter: float = 0.9                               # share of images with a textured wall
    camera: float = 0.5                                # share of images that are blurred, noisy, too dark or too bright

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = {"width": 16, "height": 16, "people": 0, "figure_height": 0.01, "distractors": 0}.get(field.name)
            if least is not None and not least <= value[0] <= value[1]:
                raise SyntheticError(f"{field.name}: {value} must be (least, most), from {least} on")
            if least is None and field.name not in ("min_pixels", "turn") and not 0 <= value <= 1:
                raise SyntheticError(f"{field.name}: {value} must be a share from 0 to 1")
        if self.people[1] > 200 or self.min_pixels < 8:
            raise SyntheticError(f"people: {self.people} may be 200 at most, and min_pixels: {self.min_pixels} 8 at least")


PRESETS = {
    "benchmark": SceneSettings(),
    "calm": SceneSettings(width=(256, 320), height=(224, 288), people=(1, 3), figure_height=(0.5, 0.95), overlap=0.05, cut_off=0.08,
                          unlabelled=0.03, crowd=0.0, distractors=(0, 3), in_front=0.0, back=0.25, turn=40.0, upright=0.9, marked=1.0,
                          clutter=0.3, camera=0.15),
}


class Person(NamedTuple):
    """One label. keypoints: (K, 3) x, y in pixels and COCO's flag v (0 not labelled, 1 hidden, 2 visible); mask: (H, W) bool, what
    shows; box: (x, y, w, h) around all that lies in the image, hidden parts too; crowd: a region of many people."""

    keypoints: Array
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    crowd: bool = False


class _Placed(NamedTuple):
    figure: Figure
    size: float
    points: Array
    labelled: bool
    crowd: bool


def render_scene(seed: int, index: int, settings: SceneSettings, skeleton: Skeleton = COCO) -> tuple[Image, list[Person]]:
    """Image (H, W, 3) uint8 RGB number `index` of the set with this seed, and its people, from the farthest to the nearest.

    The same on every machine, whatever was rendered before. SyntheticError if the skeleton has a joint that figures do not have.
    """
    unknown = [name for name in skeleton.keypoints if name not in POINT]
    if unknown:
        raise SyntheticError(f"skeleton {skeleton.name}: synthetic people have no {unknown[0]!r}; they have {', '.join(list(POINT)[:19])}")
    rng = np.random.default_rng([seed, index])
    width, height = (int(rng.integers(low, high + 1)) for low, high in (settings.width, settings.height))
    image, horizon = background(rng, width, height, settings.clutter)
    distractors(rng, image, int(rng.integers(settings.distractors[0], settings.distractors[1] + 1)))
    placed = _place_people(rng, width, height, horizon, settings)
    owner = np.zeros((height, width), np.int16)       # number of the person on top of each pixel, from 1; 0 nobody
    drawn = [_draw(rng, image, owner, person, i + 1, settings.marked) for i, person in enumerate(placed)]
    if rng.random() < settings.in_front:
        distractors(rng, image, 1, owner)
    if rng.random() < settings.camera:
        _camera(rng, image)
    return image, _labels(placed, drawn, owner, [POINT[name] for name in skeleton.keypoints])


# -- placing -------------------------------------------------------------------------------------------------------------------


def _place_people(rng: np.random.Generator, width: int, height: int, horizon: int, settings: SceneSettings) -> list[_Placed]:
    """People from the farthest (mostly the smallest) to the nearest; a crowd stands behind everybody."""
    people: list[_Placed] = []
    boxes: list[Array] = []
    smallest = max(settings.min_pixels / height, settings.figure_height[0])
    largest = max(smallest, settings.figure_height[1])
    for _ in range(int(rng.integers(settings.people[0], settings.people[1] + 1))):
        figure = sample_figure(rng, upright=rng.random() < settings.upright, back=rng.random() < settings.back, turn=settings.turn)
        size = height * float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        partner = boxes[int(rng.integers(len(boxes)))] if boxes and rng.random() < settings.overlap else None
        if partner is not None:
            near = float((partner[3] - partner[1]) * rng.uniform(0.8, 1.25))
            size = min(max(near, smallest * height), largest * height)
        origin = _origin(rng, figure, size, (width, height), horizon, settings.cut_off, boxes, partner)
        points = place(figure, size, origin)
        boxes.append(np.concatenate([points.min(axis=0), points.max(axis=0)]))
        people.append(_Placed(figure, size, points, rng.random() >= settings.unlabelled, False))
    order = np.argsort([round(person.size * rng.uniform(0.85, 1.15), 6) for person in people], kind="stable")
    crowd = _crowd(rng, width, height, settings) if rng.random() < settings.crowd else []
    return crowd + [people[i] for i in order]


def _origin(rng: np.random.Generator, figure: Figure, size: float, image: tuple[int, int], horizon: int, cut_off: float,
            boxes: list[Array], partner: Array | None) -> Array:
    """Where the pelvis goes: beside the partner, or where the person covers the others least; inside, unless it may be cut off.

    Most people stand on the ground, the larger the nearer; one in six floats.
    """
    low, high = figure.points[:, :2].min(axis=0) * size, figure.points[:, :2].max(axis=0) * size
    margin = 0.04 * size
    reach = (high - low) * (0.5 if rng.random() < cut_off else 0.0) - margin
    start, end = -low - reach, np.array(image) - 1 - high + reach
    middle = (start + end) / 2
    start, end = np.minimum(start, middle), np.maximum(end, middle)      # too large for the image: centred
    if partner is not None:
        side = 1 if rng.random() < 0.5 else -1
        wish = (partner[:2] + partner[2:]) / 2 + [side * size * rng.uniform(0.08, 0.35), size * rng.uniform(-0.08, 0.08)]
        return np.clip(wish - (low + high) / 2, start, end)
    tries = start + rng.uniform(0, 1, (8, 2)) * (end - start)
    if rng.random() < 5 / 6:
        ground = horizon + (image[1] - horizon) * min(1.0, size / image[1]) * rng.uniform(0.6, 1.1, 8)
        tries[:, 1] = np.clip(ground - high[1], start[1], end[1])
    if not boxes:
        return tries[0]
    others = np.stack(boxes)
    span = np.minimum(tries[:, None] + high, others[:, 2:]) - np.maximum(tries[:, None] + low, others[:, :2])
    covered = np.prod(np.maximum(span, 0), axis=2).sum(axis=1)
    return tries[int(np.argmin(np.round(covered)))]


def _crowd(rng: np.random.Generator, width: int, height: int, settings: SceneSettings) -> list[_Placed]:
    """A dozen or more small people side by side."""
    size = max(settings.min_pixels, height * rng.uniform(0.07, 0.16))
    left, base, count = width * rng.uniform(0, 0.6), height * rng.uniform(0.25, 0.7), int(rng.integers(8, 17))
    found = []
    for i in range(count):
        figure = sample_figure(rng, upright=True, back=rng.random() < 0.5, turn=90)
        at = (left + size * (0.3 * (i // 2) + rng.uniform(0, 0.2)), base + size * (0.25 * (i % 2) + rng.uniform(-0.05, 0.05)))
        tall = size * rng.uniform(0.85, 1.15)
        found.append(_Placed(figure, tall, place(figure, tall, at), False, True))
    return sorted(found, key=lambda person: round(float(person.points[0, 1]), 6))


# -- drawing and labels --------------------------------------------------------------------------------------------------------


class _Drawn(NamedTuple):
    area: int                                # pixels of the whole figure inside the image
    box: tuple[int, int, int, int]
    on_top: NDArray[np.bool_]                # points that the figure itself does not hide


def _draw(rng: np.random.Generator, image: Image, owner: NDArray[np.int16], person: _Placed, number: int, marked: float) -> _Drawn:
    """Paint one person over what is there."""
    outfit = sample_outfit(rng, marked=rng.random() < marked)
    start = (int(rng.integers(TILE)), int(rng.integers(TILE)))
    tone = texture(int(rng.integers(NUM_TEXTURES)))
    height, width = owner.shape
    parts = np.zeros((height, width), np.uint8)
    _shadow(image, person)
    paint(figure_shapes(person.figure, outfit, person.points, person.size), image, parts)
    x, y, w, h = box = cv2.boundingRect(parts)
    window = parts[y:y + h, x:x + w]
    if w and h:
        shade(image[y:y + h, x:x + w], window, tone, start)
        owner[y:y + h, x:x + w][window > 0] = number
    return _Drawn(cv2.countNonZero(parts), (int(box[0]), int(box[1]), int(w), int(h)), joint_visible(person.points, parts))


def _shadow(image: Image, person: _Placed) -> None:
    """Darken the ground below the feet."""
    feet = person.points[[POINT["left_toe"], POINT["right_toe"], POINT["left_ankle"], POINT["right_ankle"]]]
    wide, low = float(np.ptp(feet[:, 0])) / 2 + 0.07 * person.size, float(feet[:, 1].max()) + 0.015 * person.size
    middle = float(feet[:, 0].mean())
    x0, y0 = max(0, int(middle - wide) - 2), max(0, int(low - 0.05 * person.size) - 2)
    view = image[y0:int(low + 0.05 * person.size) + 3, x0:int(middle + wide) + 3]
    if view.size:
        layer = view.copy()
        center = (round((middle - x0) * 16), round((low - y0) * 16))
        cv2.ellipse(layer, center, (round(wide * 16), round(0.03 * person.size * 16)), 0, 0, 360, (20, 20, 26), -1, cv2.LINE_AA, 4)
        cv2.addWeighted(view, 0.625, layer, 0.375, 0, view)


def _camera(rng: np.random.Generator, image: Image) -> None:
    """One of: a soft lens, sensor noise, under- or overexposure; in place."""
    kind = int(rng.integers(3))
    if kind == 0:
        image[:] = cv2.GaussianBlur(image, (3, 3), 0)
    elif kind == 1:
        noise = rng.integers(0, 33, image.shape, dtype=np.uint8)
        image[:] = cv2.subtract(cv2.add(image, noise), np.full_like(image, 16))
    else:
        gain, offset = int(rng.integers(80, 177)), int(rng.integers(-20, 21))
        image[:] = np.clip((np.arange(256) * gain) // 128 + offset, 0, 255).astype(np.uint8)[image]


def _labels(placed: list[_Placed], drawn: list[_Drawn], owner: NDArray[np.int16], joints: list[int]) -> list[Person]:
    """People of whom something shows, with the joints (indices of points) that their skeleton has; the crowd as one region."""
    height, width = owner.shape
    crowd = np.isin(owner, [i + 1 for i, person in enumerate(placed) if person.crowd])
    found = []
    if crowd.any():
        x, y, w, h = cv2.boundingRect(crowd.view(np.uint8))
        found.append(Person(np.zeros((len(joints), 3)), crowd, (int(x), int(y), int(w), int(h)), True))
    for i, (person, shown) in enumerate(zip(placed, drawn, strict=True)):
        mask = owner == i + 1
        visible = int(np.count_nonzero(mask))
        if person.crowd or not visible:
            continue
        keypoints = np.zeros((len(joints), 3))
        if person.labelled and visible >= MIN_VISIBLE * shown.area:
            keypoints = _keypoints(person, shown, mask)[joints]
        found.append(Person(keypoints, mask, shown.box))
    return found


def _keypoints(person: _Placed, shown: _Drawn, mask: NDArray[np.bool_]) -> Array:
    """(len(POINTS), 3): hidden by somebody or by the own body: v 1; outside, or a face seen from behind: v 0 and no position."""
    height, width = mask.shape
    points = np.round(person.points, 2)
    x, y = np.round(points).astype(int).T
    inside = (points >= 0).all(axis=1) & (x < width) & (y < height)
    on_top = np.zeros(len(points), bool)
    on_top[inside] = mask[y[inside], x[inside]]
    flags = np.where(inside, np.where(shown.on_top & on_top, 2, 1), 0)
    flags[[POINT[name] for name in FACE]] *= face_visible(person.figure)
    result: Array = np.column_stack([points, flags]) * (flags > 0)[:, None]
    return result
