"""The colours of synthetic scenes, RGB."""

from __future__ import annotations

from collections.abc import Sequence

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
WARM = (
    (226, 56, 52),
    (244, 120, 36),
    (250, 190, 40),
    (232, 70, 140),
)  # what people wear on their left
COOL = ((36, 92, 220), (30, 160, 200), (40, 165, 95), (96, 70, 205))  # and on their right


def pick(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def mix(color: Color, other: Color, eighths: int) -> Color:
    """The colour `eighths`/8 of the way from one to the other."""
    red, green, blue = (
        (a * (8 - eighths) + b * eighths) // 8 for a, b in zip(color, other, strict=True)
    )
    return red, green, blue


def dark(color: Color, eighths: int = 3) -> Color:
    return mix(color, (12, 10, 18), eighths)


def light(color: Color, eighths: int = 2) -> Color:
    return mix(color, (255, 252, 240), eighths)
