"""What synthetic people look like: skin, hair and clothes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swahr.data.synthetic.shapes import Color, dark, light

SKIN = ((255, 219, 190), (240, 200, 165), (224, 172, 130), (198, 140, 98), (160, 105, 70), (120, 78, 52), (92, 62, 46))
HAIR = ((30, 25, 25), (60, 40, 28), (95, 60, 35), (150, 100, 50), (215, 175, 95), (165, 60, 35), (150, 150, 150),
        (225, 222, 215))
CLOTH = ((238, 238, 232), (45, 48, 58), (120, 125, 135), (70, 90, 125), (190, 60, 60), (222, 150, 60), (235, 205, 95),
         (90, 140, 85), (60, 120, 150), (125, 85, 140), (205, 120, 140), (150, 110, 80), (95, 180, 175), (60, 70, 50),
         (220, 190, 160))
WARM = ((226, 56, 52), (244, 120, 36), (250, 190, 40), (232, 70, 140))      # what people wear on their left
COOL = ((36, 92, 220), (30, 160, 200), (40, 165, 95), (96, 70, 205))        # and on their right
PATTERNS = ("plain", "stripes", "stripes", "halves", "dots", "number")


class Outfit(NamedTuple):
    """Colours are pairs (front, back) for cloth, and (left, right) for marks and shoes; sleeves: none, short or long."""

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
    pack: bool


def pick(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def sample_outfit(rng: np.random.Generator, *, marked: bool) -> Outfit:
    """Clothes, hair and skin. marked: pads, gloves, seams and shoes, warm colours on the left and cool on the right."""
    front, legs, shoe = pick(rng, CLOTH), pick(rng, CLOTH), pick(rng, CLOTH)
    marks = (pick(rng, WARM), pick(rng, COOL))
    coat, lower = rng.random() < 0.5, rng.random()
    return Outfit(
        skin=pick(rng, SKIN), hair=pick(rng, HAIR),
        top=(light(front), dark(front, 4) if coat else pick(rng, CLOTH[:4])),
        legs=(legs, dark(legs, 4)), marks=marks, shoes=marks if marked else (shoe, shoe), marked=marked,
        sleeves=("none", "short", "short", "long", "long")[rng.integers(5)], shorts=lower < 0.3, skirt=lower > 0.85,
        pattern=PATTERNS[rng.integers(len(PATTERNS))], long_hair=rng.random() < 0.35, cap=rng.random() < 0.15,
        pack=rng.random() < 0.25)
