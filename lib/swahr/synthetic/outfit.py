"""What synthetic people look like: skin, hair and clothes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swahr.synthetic.colors import CLOTH, COOL, HAIR, SKIN, WARM, Color, dark, light, pick

PATTERNS = ("plain", "stripes", "stripes", "halves", "dots", "number")


class Outfit(NamedTuple):
    """Colours are pairs (front, back) of cloth, (left, right) of marks and shoes; sleeves: none,
    short or long.
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
    pack: bool


def sample_outfit(rng: np.random.Generator, *, marked: bool) -> Outfit:
    """Clothes, hair and skin. marked: pads, gloves, seams and shoes, warm colours on the left and
    cool on the right.
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
        pack=rng.random() < 0.25,
    )
