"""A scene: the image, and the labels of the people in it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.skeleton import COCO, Skeleton
from swahr.synthetic.background import NUM_TEXTURES, TILE, background, distractors, shade, texture
from swahr.synthetic.figure import FACE, POINT, face_visible
from swahr.synthetic.outfit import sample_outfit
from swahr.synthetic.paint import figure_shapes, joint_visible
from swahr.synthetic.placing import Placed, place_people
from swahr.synthetic.settings import SceneSettings, SyntheticError
from swahr.synthetic.shapes import SHIFT, Array, Image, fixed, paint

NUM_JOINTS = 19  # points of a figure that a skeleton may name
MIN_VISIBLE = 0.2  # people of whom less than this share shows are not labelled


class Person(NamedTuple):
    """One label. keypoints: (K, 3) x, y in pixels and COCO's flag v (0 not labelled, 1 hidden, 2
    visible); mask: (H, W) bool, what shows; box: (x, y, w, h) around all that is in the image,
    hidden parts too; crowd: many in one region.
    """

    keypoints: Array
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    crowd: bool = False


def render_scene(
    seed: int, index: int, settings: SceneSettings, skeleton: Skeleton = COCO
) -> tuple[Image, list[Person]]:
    """Image (H, W, 3) uint8 RGB number `index` of the set with this seed, and its people, the
    farthest first.

    The same on every machine, whatever was rendered before. SyntheticError if the skeleton has a
    joint that figures do not have.
    """
    unknown = [name for name in skeleton.keypoints if name not in list(POINT)[:NUM_JOINTS]]
    if unknown:
        known = ", ".join(list(POINT)[:NUM_JOINTS])
        raise SyntheticError(
            f"skeleton {skeleton.name}: synthetic people have no {unknown[0]!r}; they have {known}"
        )
    rng = np.random.default_rng([seed, index])
    width, height = (
        int(rng.integers(low, high + 1)) for low, high in (settings.width, settings.height)
    )
    image, horizon = background(rng, width, height, settings.clutter)
    distractors(rng, image, int(rng.integers(settings.distractors[0], settings.distractors[1] + 1)))
    placed = place_people(rng, width, height, horizon, settings)
    owner = np.zeros(
        (height, width), np.int16
    )  # number of the person on top of each pixel, from 1; 0 nobody
    drawn = [
        _draw(rng, image, owner, person, i + 1, settings.marked) for i, person in enumerate(placed)
    ]
    if rng.random() < settings.in_front:
        distractors(rng, image, 1, owner)
    if rng.random() < settings.camera:
        _camera(rng, image)
    return image, _labels(placed, drawn, owner, [POINT[name] for name in skeleton.keypoints])


# -- drawing and labels
# ------------------------------------------------------------------------------------------------


class _Drawn(NamedTuple):
    area: int  # pixels of the whole figure inside the image
    box: tuple[int, int, int, int]
    on_top: NDArray[np.bool_]  # points that the figure itself does not hide


def _draw(
    rng: np.random.Generator,
    image: Image,
    owner: NDArray[np.int16],
    person: Placed,
    number: int,
    marked: float,
) -> _Drawn:
    """Paint one person over what is there."""
    outfit = sample_outfit(rng, marked=rng.random() < marked)
    start = (int(rng.integers(TILE)), int(rng.integers(TILE)))
    tone = texture(int(rng.integers(NUM_TEXTURES)))
    height, width = owner.shape
    parts = np.zeros((height, width), np.uint8)
    _shadow(image, person)
    paint(figure_shapes(person.figure, outfit, person.points, person.size), image, parts)
    x, y, w, h = (int(side) for side in cv2.boundingRect(parts))
    window = parts[y : y + h, x : x + w]
    if w and h:
        shade(image[y : y + h, x : x + w], window, tone, start)
        owner[y : y + h, x : x + w][window > 0] = number
    return _Drawn(cv2.countNonZero(parts), (x, y, w, h), joint_visible(person.points, parts))


def _shadow(image: Image, person: Placed) -> None:
    """Darken the ground below the feet."""
    feet = person.points[
        [POINT["left_toe"], POINT["right_toe"], POINT["left_ankle"], POINT["right_ankle"]]
    ]
    wide = float(np.ptp(feet[:, 0])) / 2 + 0.07 * person.size
    low = float(feet[:, 1].max()) + 0.015 * person.size
    middle = float(feet[:, 0].mean())
    x0 = max(0, int(middle - wide) - 2)
    y0 = max(0, int(low - 0.05 * person.size) - 2)
    view = image[y0 : int(low + 0.05 * person.size) + 3, x0 : int(middle + wide) + 3]
    if view.size:
        layer = view.copy()
        center, axes = fixed([(middle - x0, low - y0), (wide, 0.03 * person.size)]).tolist()
        cv2.ellipse(layer, center, axes, 0, 0, 360, (20, 20, 26), -1, cv2.LINE_AA, SHIFT)
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
        gain = int(rng.integers(80, 177))
        offset = int(rng.integers(-20, 21))
        image[:] = np.clip((np.arange(256) * gain) // 128 + offset, 0, 255).astype(np.uint8)[image]


def _labels(
    placed: list[Placed], drawn: list[_Drawn], owner: NDArray[np.int16], joints: list[int]
) -> list[Person]:
    """People of whom something shows, with the given joints (indices of points); the crowd as one
    region.
    """
    height, width = owner.shape
    crowd = np.isin(owner, [i + 1 for i, person in enumerate(placed) if person.crowd])
    found = []
    if crowd.any():
        x, y, w, h = cv2.boundingRect(crowd.view(np.uint8))
        found.append(
            Person(np.zeros((len(joints), 3)), crowd, (int(x), int(y), int(w), int(h)), True)
        )
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


def _keypoints(person: Placed, shown: _Drawn, mask: NDArray[np.bool_]) -> Array:
    """(len(POINTS), 3): v 1 where somebody or the own body hides it; all 0 outside the image, or in
    a hidden face.
    """
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
