"""Colours of synthetic scenes (RGB), and the clothes, hair and skin of synthetic people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Color = tuple[int, int, int]

SKIN = (
    (255, 219, 190),
    (240, 200, 165),
    (224, 172, 130),
    (198, 140, 98),
    (160, 105, 70),
    (120, 78, 52),
    (92, 62, 46),
)
HAIR = (
    (30, 25, 25),
    (60, 40, 28),
    (95, 60, 35),
    (150, 100, 50),
    (215, 175, 95),
    (165, 60, 35),
    (150, 150, 150),
    (225, 222, 215),
)
CLOTH = (
    (238, 238, 232),
    (45, 48, 58),
    (120, 125, 135),
    (70, 90, 125),
    (190, 60, 60),
    (222, 150, 60),
    (235, 205, 95),
    (90, 140, 85),
    (60, 120, 150),
    (125, 85, 140),
    (205, 120, 140),
    (150, 110, 80),
    (95, 180, 175),
    (60, 70, 50),
    (220, 190, 160),
)
WARM = ((226, 56, 52), (244, 120, 36), (250, 190, 40), (232, 70, 140))  # marks on the left side
COOL = ((36, 92, 220), (30, 160, 200), (40, 165, 95), (96, 70, 205))  # marks on the right side


def pick(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    """Draw one of the colours."""
    return colors[int(rng.integers(len(colors)))]


def mix(color: Color, other: Color, eighths: int) -> Color:
    """The mixture of (8 - eighths) / 8 of `color` and eighths / 8 of `other`."""
    red, green, blue = (
        (a * (8 - eighths) + b * eighths) // 8 for a, b in zip(color, other, strict=True)
    )
    return red, green, blue


def dark(color: Color, eighths: int = 3) -> Color:
    """The colour mixed with eighths / 8 of near black."""
    return mix(color, (12, 10, 18), eighths)


def light(color: Color, eighths: int = 2) -> Color:
    """The colour mixed with eighths / 8 of near white."""
    return mix(color, (255, 252, 240), eighths)


PATTERNS = ("plain", "stripes", "stripes", "halves", "dots", "number")


class Outfit(NamedTuple):
    """Skin, hair and clothes of one person.

    top, legs: colours of the front and the back. marks, shoes: colours of the left and the right
    side. sleeves: "none", "short" or "long".
    """

    skin: Color
    hair: Color
    top: tuple[Color, Color]
    legs: tuple[Color, Color]
    marks: tuple[Color, Color]
    shoes: tuple[Color, Color]
    marked: bool
    sleeves: str
    shorts: bool
    skirt: bool
    pattern: str
    long_hair: bool
    cap: bool
    backpack: bool


def sample_outfit(rng: np.random.Generator, *, marked: bool) -> Outfit:
    """Draw an outfit. marked: pads, gloves, seams and shoes are warm on the person's left and cool
    on the right.
    """
    front = pick(rng, CLOTH)
    legs = pick(rng, CLOTH)
    shoe = pick(rng, CLOTH)
    marks = (pick(rng, WARM), pick(rng, COOL))
    coat = rng.random() < 0.5
    lower = rng.random()
    return Outfit(
        skin=pick(rng, SKIN),
        hair=pick(rng, HAIR),
        top=(light(front), dark(front, 4) if coat else pick(rng, CLOTH[:4])),
        legs=(legs, dark(legs, 4)),
        marks=marks,
        shoes=marks if marked else (shoe, shoe),
        marked=marked,
        sleeves=("none", "short", "short", "long", "long")[rng.integers(5)],
        shorts=lower < 0.3,
        skirt=lower > 0.85,
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        long_hair=rng.random() < 0.35,
        cap=rng.random() < 0.15,
        backpack=rng.random() < 0.25,
    )
