"""What synthetic scenes are like, and two presets of it."""

from __future__ import annotations

from dataclasses import dataclass, fields


class SyntheticError(ValueError):
    """Settings or a folder that no synthetic set can be made with; the message says which and what
    would be right.
    """


@dataclass(frozen=True)
class SceneSettings:
    """What synthetic scenes are like. Ranges are (least, most); shares are of people or of images,
    0 to 1.
    """

    width: tuple[int, int] = (384, 640)  # of the image, pixels
    height: tuple[int, int] = (320, 544)
    people: tuple[int, int] = (1, 10)  # in an image, besides crowds
    figure_height: tuple[float, float] = (
        0.05,
        1.0,
    )  # of a standing person, share of the image's height; log-uniform
    min_pixels: int = 25  # nobody is smaller
    overlap: float = 0.35  # share of people who stand close to another one
    cut_off: float = 0.2  # share of people whom the image's border may cut
    unlabelled: float = 0.1  # share of people without keypoints
    crowd: float = 0.12  # share of images with a crowd region
    distractors: tuple[int, int] = (2, 12)  # things in an image
    in_front: float = 0.2  # share of images where one of them stands before the people
    back: float = 0.3  # share of people seen from behind
    turn: float = 90.0  # degrees that people are turned sideways at most
    upright: float = 0.6  # share of people who stand or walk
    marked: float = 0.5  # share of people with warm marks on the left, cool ones right
    clutter: float = 0.9  # share of images with a textured wall
    camera: float = 0.5  # share of images that are blurred, noisy, too dark or too bright

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = {
                "width": 16,
                "height": 16,
                "people": 0,
                "figure_height": 0.01,
                "distractors": 0,
            }.get(field.name)
            if least is not None and not least <= value[0] <= value[1]:
                raise SyntheticError(
                    f"{field.name}: {value} must be (least, most), from {least} on"
                )
            if least is None and field.name not in ("min_pixels", "turn") and not 0 <= value <= 1:
                raise SyntheticError(f"{field.name}: {value} must be a share from 0 to 1")
        if self.people[1] > 200 or self.min_pixels < 8:
            raise SyntheticError(
                f"people: {self.people} may be 200 at most; min_pixels: {self.min_pixels} 8 at least"
            )


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
