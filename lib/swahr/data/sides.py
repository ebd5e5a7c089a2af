"""Left and right in the names of keypoints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

SIDES = ("left", "right")

_SIDE_PAIRS = (SIDES, ("Left", "Right"), ("LEFT", "RIGHT"))
_LETTER_PAIRS = (("l", "r"), ("L", "R"))
_OTHER_SIDE = {a: b for pair in _SIDE_PAIRS for a, b in (pair, pair[::-1])}
_OTHER_LETTER = {a: b for pair in _LETTER_PAIRS for a, b in (pair, pair[::-1])}
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of a name like left_eye, LeftEye or L_EYE
_ANY_SIDE = re.compile("|".join(_OTHER_SIDE))
_FIRST_LETTER = re.compile("^[lLrR](?=[A-Z])")


def flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Index pairs (left, right) of names that differ in left and right: left_ear and right_ear,
    EarLeft and EarRight, ear_l and ear_r, lEar and rEar, earL and earR. A name is in one pair.
    """
    index = {name: k for k, name in enumerate(names)}
    others = [_mirrored(name) for name in names]
    pairs: dict[int, int] = {}
    for exchanged in zip(*others):  # what differs in the whole words comes first
        for k, (name, other) in enumerate(zip(names, exchanged)):
            taken = {*pairs, *pairs.values()}
            is_left = name < other  # l comes before r
            if is_left and other in index and taken.isdisjoint((k, index[other])):
                pairs[k] = index[other]
    return tuple(sorted(pairs.items()))


def mirrored_names(name: str) -> list[str]:
    """What the keypoint of the other side may be called, the likeliest first; [] if the name has
    no side.
    """
    return [other for other in dict.fromkeys(_mirrored(name)) if other != name]


def words(name: str) -> list[str]:
    """The words of a name, in small letters."""
    return [word.lower() for word in _WORD.findall(name)]


def _mirrored(name: str) -> Iterator[str]:
    """The name with its sides exchanged in five ways; the name itself where one changes nothing."""
    sides = _WORD.sub(_other_side, name)
    yield sides
    yield _WORD.sub(_other_letter, name)  # ear_l, lEar, earL
    yield _WORD.sub(_other_letter, sides)  # LeftEarL
    yield _ANY_SIDE.sub(lambda found: _OTHER_SIDE[found[0]], name)  # earleft
    yield _FIRST_LETTER.sub(lambda found: _OTHER_LETTER[found[0]], name)  # LEAR


def _other_side(found: re.Match[str]) -> str:
    word = found[0]
    for side, other in _OTHER_SIDE.items():
        if word.startswith(side):
            return other + word[len(side) :]
    return word


def _other_letter(found: re.Match[str]) -> str:
    return _OTHER_LETTER.get(found[0], found[0])
