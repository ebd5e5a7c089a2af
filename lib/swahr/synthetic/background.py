"""Backgrounds of scenes: sky and ground, walls, foliage, and distractors.

Distractors are objects that a network could mistake for parts of people.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.synthetic.outfit import CLOTH, COOL, HAIR, SKIN, WARM, Color, dark, light, mix, pick
from swahr.synthetic.shapes import SHIFT, Array, Image, capsules, ellipses, fixed

TEXTURE_SIZE = 512  # pixels; a texture is repeated over larger areas


def background(
    rng: np.random.Generator, width: int, height: int, clutter: float
) -> tuple[Image, int]:
    """Draw an empty scene (height, width, 3); return it and the row of its horizon.

    clutter: probability that the wall, and the ground, has a pattern.
    """
    image = _gradient(pick(rng, CLOTH), pick(rng, CLOTH), width, height)
    horizon = int(height * rng.uniform(0.35, 0.85))
    if rng.random() < clutter:
        _WALLS[int(rng.integers(len(_WALLS)))](rng, image, horizon)
    if rng.random() < 0.75:
        ground = _gradient(light(pick(rng, CLOTH)), dark(pick(rng, CLOTH)), width, height - horizon)
        image[horizon:] = ground
        if rng.random() < clutter:
            _floor(rng, image, horizon)
    shade(
        image,
        np.full((height, width), 255, np.uint8),
        texture(int(rng.integers(NUM_TEXTURES))),
        (int(rng.integers(TEXTURE_SIZE)), int(rng.integers(TEXTURE_SIZE))),
    )
    return image, horizon


def distractors(
    rng: np.random.Generator, image: Image, count: int, owner: NDArray[np.int16] | None = None
) -> None:
    """Paint `count` poles, balls, boxes, bare limbs, dummies' heads and letters, in place.

    Where owner (H, W) is given, they stand before its people: the pixels they cover become 0 in it.
    """
    height, width = image.shape[:2]
    for _ in range(count):
        cover = np.zeros((height, width), np.uint8) if owner is not None else None
        size = height * 10 ** rng.uniform(-1.7, -0.6)
        at = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        for polygon, color in _object(rng, at, size):
            cv2.fillConvexPoly(image, fixed(polygon), color, cv2.LINE_AA, SHIFT)
            if cover is not None:
                cv2.fillConvexPoly(cover, fixed(polygon), 255, cv2.LINE_8, SHIFT)
        if owner is not None and cover is not None:
            owner[cover > 0] = 0
        elif rng.random() < 0.15:
            text = "AHOSWR"[int(rng.integers(6))] * int(rng.integers(1, 4))
            cv2.putText(
                image,
                text,
                (int(at[0]), int(at[1])),
                cv2.FONT_HERSHEY_SIMPLEX,
                max(0.4, size / 60),
                pick(rng, CLOTH),
                max(1, int(size / 20)),
                cv2.LINE_AA,
            )


def _object(rng: np.random.Generator, at: Array, size: float) -> list[tuple[Array, Color]]:
    """One object as convex polygons: a pole, a ball, a box, a bare limb, or a dummy's head."""
    color = pick(rng, (*CLOTH, *WARM, *COOL))
    angle = rng.uniform(0, 2 * np.pi)
    across = np.array([np.cos(angle), np.sin(angle)]) * size
    side = np.array([-across[1], across[0]]) * rng.uniform(0.3, 1.0)
    kind = int(rng.integers(5))
    if kind == 0:  # a leaning or upright pole
        tip = at + np.array([rng.uniform(-0.3, 0.3), 2.5]) * size
        return [
            (_bar(at, tip, size * 0.1, size * 0.1), dark(color)),
            (_bar(at, tip, size * 0.07, size * 0.06), color),
        ]
    if kind == 1:  # a ball
        return [
            (_oval(at, size, size), dark(color)),
            (_oval(at, size * 0.92, size * 0.92), color),
            (_oval(at - size * 0.35, size * 0.3, size * 0.3), light(color, 4)),
        ]
    if kind == 2:  # a box
        corners = np.stack(
            [at - across - side, at + across - side, at + across + side, at - across + side]
        )
        return [
            (corners, dark(color)),
            (at + (corners - at) * 0.9, color),
            (at + (corners - at) * 0.45, light(color)),
        ]
    if kind == 3:  # two bars with a joint, in the colours of an arm
        joint = at + across
        end = at + across + side * 0.8
        skin = pick(rng, SKIN)
        return [
            (_bar(at, joint, size * 0.16, size * 0.13), dark(color)),
            (_bar(at, joint, size * 0.14, size * 0.1), color),
            (_bar(joint, end, size * 0.12, size * 0.1), skin),
        ]
    hair = pick(rng, HAIR)
    skin = pick(rng, SKIN)  # a head without a face
    return [
        (_oval(at, size * 0.44, size * 0.55), hair),
        (_oval(at + [0, size * 0.12], size * 0.32, size * 0.4), skin),
    ]


def _bar(start: Array, end: Array, thick: float, thin: float) -> Array:
    return capsules(start[None], end[None], np.array([thick]), np.array([thin]))[0]


def _oval(center: Array, wide: float, high: float) -> Array:
    return ellipses(center[None], np.array([[wide, 0]]), np.array([[0, high]]))[0]


# -- walls and floors


def _gradient(top: Color, bottom: Color, width: int, height: int) -> Image:
    steps = np.arange(max(1, height), dtype=np.int64)[:, None]
    rows = (np.array(top) * (len(steps) - steps) + np.array(bottom) * steps) // len(steps)
    return np.repeat(rows.astype(np.uint8)[:, None], width, axis=1)


def _clouds(rng: np.random.Generator, image: Image, horizon: int) -> None:
    """Coloured noise at three scales."""
    height, width = image.shape[:2]
    total = np.zeros((height, width, 3), np.uint8)
    for cells, weight in ((4, 2), (11, 4), (40, 8)):
        grid = rng.integers(0, 256 // weight, (cells, cells, 3)).astype(np.uint8)
        cv2.add(
            total, cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT), total
        )
    cv2.addWeighted(image, 0.5, total, 0.5, 0, image)


def _leaves(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    color = pick(rng, CLOTH)
    count = int(rng.integers(40, 120))
    at = rng.uniform(0, 1, (count, 2)) * [width, max(1, horizon)]
    size = height * rng.uniform(0.02, 0.09, (count, 1))
    angle = rng.uniform(0, np.pi, count)
    heading = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    polygons = fixed(ellipses(at, heading * size, heading[:, ::-1] * [-1, 1] * size * 0.6))
    for polygon, tone in zip(polygons, rng.integers(0, 6, count).tolist(), strict=True):
        leaf = dark(color, tone) if tone % 2 else mix(color, (120, 160, 90), tone)
        cv2.fillConvexPoly(image, polygon, leaf, cv2.LINE_AA, SHIFT)


def _bricks(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    color = pick(rng, CLOTH)
    rows = int(rng.integers(4, 16))
    tall = max(3, height // rows)
    wide = int(tall * rng.uniform(0.8, 2.5)) + 1
    for j, y in enumerate(range(0, height, tall)):
        for x in range(-(j % 2) * wide // 2, width, wide):
            cv2.rectangle(
                image,
                (x, y),
                (x + wide - 2, y + tall - 2),
                dark(color, int(rng.integers(0, 4))),
                -1,
            )


def _houses(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    x = 0
    while x < width:
        wide = int(width * rng.uniform(0.1, 0.3)) + 4
        top = int(horizon * rng.uniform(0, 0.7))
        color = pick(rng, CLOTH)
        cv2.rectangle(image, (x, top), (x + wide, height), color, -1)
        step = max(5, wide // int(rng.integers(2, 6)))
        glass = light(color, 5) if rng.random() < 0.5 else dark(color, 4)
        for y in range(top + step // 2, horizon, step + step // 3):
            for left in range(x + step // 4, x + wide - step // 2, step):
                cv2.rectangle(image, (left, y), (left + step // 2, y + step * 2 // 3), glass, -1)
        x += wide


def _stripes(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    color = pick(rng, CLOTH)
    step = width * rng.uniform(0.03, 0.15)
    slant = rng.uniform(-1, 1) * height
    for x in np.arange(-height, width + height, 2 * step):
        corners = [(x, 0), (x + step, 0), (x + step + slant, height), (x + slant, height)]
        cv2.fillConvexPoly(image, fixed(corners), color, cv2.LINE_AA, SHIFT)


def _floor(rng: np.random.Generator, image: Image, horizon: int) -> None:
    """Lines that run to a vanishing point, and sometimes lines across."""
    height, width = image.shape[:2]
    color = pick(rng, CLOTH)
    middle = width * rng.uniform(0.2, 0.8)
    for x in np.linspace(-2 * width, 3 * width, int(rng.integers(8, 24))):
        far, near = fixed([(middle + (x - middle) * 0.2, horizon), (x, height)]).tolist()
        cv2.line(image, far, near, color, 1, cv2.LINE_AA, SHIFT)
    if rng.random() < 0.5:
        for t in (0.06, 0.16, 0.32, 0.58):
            y = int(horizon + t * (height - horizon))
            cv2.line(image, (0, y), (width, y), color, 1)


_WALLS = (_clouds, _leaves, _bricks, _houses, _stripes)


# -- texture

NUM_TEXTURES = 5


@lru_cache(maxsize=NUM_TEXTURES)
def texture(kind: int) -> Image:
    """A grey texture (TEXTURE_SIZE, TEXTURE_SIZE, 3) for `shade`; 128 leaves a colour unchanged.

    kind: 0 noise, 1 weave, 2 knit, 3 checks, 4 spots.
    """
    rng = np.random.default_rng(kind)
    noise = rng.integers(123, 134, (TEXTURE_SIZE, TEXTURE_SIZE))
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE]
    if kind == 1:
        noise = noise + 4 * ((x + y) % 4 < 2) - 2
    elif kind == 2:
        noise = noise + 6 * ((y + np.abs(x % 8 - 4)) % 6 < 3) - 3
    elif kind == 3:
        noise = noise + 6 * ((x // 8 + y // 8) % 2) - 3
    elif kind == 4:
        spots = np.tile(rng.integers(100, 157, (24, 24)).astype(np.uint8), (3, 3))
        nine = cv2.resize(
            spots, (3 * TEXTURE_SIZE, 3 * TEXTURE_SIZE), interpolation=cv2.INTER_LINEAR_EXACT
        )
        noise = (
            noise
            + nine[TEXTURE_SIZE : 2 * TEXTURE_SIZE, TEXTURE_SIZE : 2 * TEXTURE_SIZE].astype(int)
        ) // 2  # the middle copy tiles seamlessly
    return np.repeat(noise.astype(np.uint8)[..., None], 3, axis=2)


def shade(image: Image, mask: Image, tone: Image, start: tuple[int, int]) -> None:
    """Multiply image (H, W, 3) by tone / 128 where mask (H, W) is not 0, in place.

    start: row and column of the texture `tone` at the image's top left corner.
    """
    height, width = image.shape[:2]
    rows = (np.arange(height) + start[0]) % TEXTURE_SIZE
    columns = (np.arange(width) + start[1]) % TEXTURE_SIZE
    cv2.copyTo(cv2.multiply(image, tone[rows[:, None], columns], scale=1 / 128), mask, image)
