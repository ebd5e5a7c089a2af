"""Left and right in the names of keypoints."""

from __future__ import annotations

import pytest

from swahr.data.sides import flip_pairs, mirrored_names
from swahr.skeleton import COCO


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("nose", "left_ear", "right_ear"), [(1, 2)]),
        (("right_ear", "left_ear"), [(1, 0)]),
        (("EarLeft", "EarRight", "LEFT", "RIGHT"), [(0, 1), (2, 3)]),
        (("leftear", "rightear", "cleft"), [(0, 1)]),
        (("ear_l", "ear_r", "L ear", "R ear", "l1", "r1"), [(0, 1), (2, 3), (4, 5)]),
        (("lEar", "rEar", "pawL", "pawR", "earLTip", "earRTip"), [(0, 1), (2, 3), (4, 5)]),
        (("left_ear", "tail", "limb", "Lip"), []),
        (
            ("LeftEarL", "RightEarR", "earleft", "earright", "LHIP", "RHIP"),
            [(0, 1), (2, 3), (4, 5)],
        ),
        (("left_L", "right_L", "left_R", "right_R"), [(0, 1), (2, 3)]),
        (("right_R", "right_L", "left_L", "left_R"), [(2, 1), (3, 0)]),
        (("left_L", "right_L", "right_R"), [(0, 1)]),
    ],
)
def test_flip_pairs_of_names(names: tuple[str, ...], pairs: list[tuple[int, int]]) -> None:
    assert list(flip_pairs(names)) == pairs


def test_flip_pairs_of_coco_are_found() -> None:
    assert flip_pairs(COCO.keypoints) == COCO.flip_pairs


def test_the_likeliest_name_of_the_other_side_comes_first() -> None:
    assert mirrored_names("left_L") == ["right_L", "left_R", "right_R"]
    assert mirrored_names("nose") == []
