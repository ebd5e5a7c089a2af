"""A person in space: proportions, poses, and where its joints lie seen from the camera.

Lengths are in heights of the standing person. Body axes: x to the person's left, y down, z forward.
Camera axes: x right, y down, z towards the viewer; at yaw 0 a person looks into the camera, its
left on the right of the image.
Angles are degrees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swahr.synthetic.shapes import Array

Range = tuple[float, float]

# Every point a figure has; the first 19 can be keypoints of a skeleton, under these names.
POINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "head",
    "neck",
    "left_hand",
    "right_hand",
    "left_toe",
    "right_toe",
    "head_center",
    "mouth",
)
POINT = {name: i for i, name in enumerate(POINTS)}
FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
# Points of the head, in head axes and units of its half axes.
ON_HEAD = [*range(5), POINT["head"], POINT["head_center"], POINT["mouth"]]
_HEAD = np.array(
    [
        [0, 0.14, 1.12],
        [0.40, -0.10, 0.86],
        [-0.40, -0.10, 0.86],
        [0.98, 0.05, -0.05],
        [-0.98, 0.05, -0.05],
        [0, -0.93, 0],
        [0, 0, 0],
        [0, 0.52, 0.88],
    ]
)
SIDES = np.array([1.0, -1.0])  # left, right: the sign of body x


class Arm(NamedTuple):
    """Ranges of an arm: swing forward, spread sideways, bend of the elbow; turn: forward (0), in
    (90), out (-90).
    """

    swing: Range
    spread: Range
    bend: Range
    turn: Range


class Legs(NamedTuple):
    """Ranges of both legs; `opposed` legs swing against each other. lean: of the upper body,
    forward.
    """

    swing: Range
    spread: Range
    bend: Range
    lean: Range = (-4, 8)
    opposed: bool = False


ARMS = {
    "hang": Arm((-12, 15), (6, 18), (5, 25), (0, 60)),
    "swing": Arm((-40, 40), (5, 15), (15, 60), (0, 30)),
    "hip": Arm((-25, -5), (40, 55), (85, 105), (70, 100)),
    "raised": Arm((-20, 20), (125, 170), (0, 45), (-60, 60)),
    "out": Arm((-10, 20), (60, 105), (0, 30), (-90, 30)),
    "wave": Arm((-10, 25), (65, 100), (50, 110), (-95, -60)),
    "carry": Arm((0, 30), (5, 20), (70, 110), (0, 30)),
    "reach": Arm((50, 120), (-5, 25), (0, 40), (0, 60)),
    "any": Arm((-50, 150), (0, 120), (0, 130), (-90, 90)),
}
LEGS = {
    "stand": Legs((-5, 6), (2, 9), (0, 8)),
    "walk": Legs((12, 28), (1, 6), (4, 30), (-2, 8), True),
    "wide": Legs((-5, 15), (12, 32), (0, 25)),
    "run": Legs((25, 55), (0, 8), (15, 90), (5, 22), True),
    "sit": Legs((70, 92), (4, 18), (70, 95), (-8, 12)),
    "crouch": Legs((75, 110), (6, 25), (95, 130), (10, 35)),
    "bow": Legs((-10, 10), (2, 12), (0, 15), (35, 75)),
    "any": Legs((-35, 95), (0, 40), (0, 110), (-15, 40)),
}
UPRIGHT_ARMS = ("hang", "hang", "swing", "hip", "raised", "out", "wave", "carry")
UPRIGHT_LEGS = ("stand", "stand", "walk", "wide")


class Figure(NamedTuple):
    """One posed person, in camera axes.

    points: (len(POINTS), 3) in heights, the pelvis at 0; chest, pelvis, head: (3, 3), rows are the
    axes left, down and forward of that part; head_radii: half width and half height; build: factor
    on every thickness.
    """

    points: Array
    chest: Array
    pelvis: Array
    head: Array
    head_radii: tuple[float, float]
    build: float


def rotation(axis: int, degrees: float) -> Array:
    """The matrix (3, 3) that turns row vectors, v @ R, around one of the three axes."""
    cos = np.cos(np.deg2rad(degrees))
    sin = np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    i = (axis + 1) % 3
    j = (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos, sin, -sin, cos
    return matrix


def _limb_axes(swing: Array, spread: Array) -> tuple[Array, Array, Array]:
    """Directions (2, 3) of two limbs, of their forward and of their outward side, for angles (2,);
    0 hangs down.
    """
    a = np.deg2rad(swing)
    b = np.deg2rad(spread)
    zero = np.zeros(2)
    along = np.stack([SIDES * np.sin(b), np.cos(b) * np.cos(a), np.cos(b) * np.sin(a)], axis=1)
    forward = np.stack([zero, -np.sin(a), np.cos(a)], axis=1)
    outward = np.stack([SIDES * np.cos(b), -np.sin(b) * np.cos(a), -np.sin(b) * np.sin(a)], axis=1)
    return along, forward, outward


def _arms(
    rng: np.random.Generator, names: tuple[str, ...], length: float
) -> tuple[Array, Array, Array]:
    """Elbows, wrists and hands (2, 3) from the shoulders, in chest axes. One pose for both arms, or
    one each.
    """
    left = ARMS[names[rng.integers(len(names))]]
    right = left if rng.random() < 0.5 else ARMS[names[rng.integers(len(names))]]
    angles = np.array([[rng.uniform(*limits) for limits in arm] for arm in (left, right)])
    along, forward, outward = _limb_axes(angles[:, 0], angles[:, 1])
    bend = np.deg2rad(angles[:, 2:3])
    turn = np.deg2rad(angles[:, 3:4])
    fore = np.cos(bend) * along + np.sin(bend) * (np.cos(turn) * forward - np.sin(turn) * outward)
    elbow = 0.52 * length * along
    wrist = elbow + 0.48 * length * fore
    return elbow, wrist, wrist + 0.13 * length * fore


def _legs(
    rng: np.random.Generator, pose: Legs, thigh: float, shin: float
) -> tuple[Array, Array, Array]:
    """Knees, ankles and toes (2, 3) from the hips, in pelvis axes."""
    swing = rng.uniform(*pose.swing, size=2)
    if pose.opposed:
        swing *= SIDES * (1 if rng.random() < 0.5 else -1)
    along, forward, _ = _limb_axes(swing, rng.uniform(*pose.spread, size=2))
    bend = np.deg2rad(rng.uniform(*pose.bend, size=(2, 1)))
    lower = np.cos(bend) * along - np.sin(bend) * forward
    toward = np.cos(bend) * forward + np.sin(bend) * along
    knee = thigh * along
    ankle = knee + shin * lower
    return knee, ankle, ankle + 0.075 * toward + 0.03 * lower


def sample_figure(rng: np.random.Generator, *, upright: bool, back: bool, turn: float) -> Figure:
    """Draw one person: its proportions, a pose, and the side it shows the camera.

    upright: standing or walking, nearly vertical; else any pose, also sitting, running, lying.
    back: seen from behind; turn: how many degrees at most it is turned to either side from there.
    """
    big = rng.uniform(1.0, 1.3)  # the head's size against the body's
    lengths = np.array([0.045, 0.225, 0.235, 0.285, 0.055, 0.150 * big]) * rng.uniform(
        0.94, 1.06, size=6
    )
    sole, shin, thigh, spine, neck_length, head_height = lengths / lengths.sum()
    shoulder_width = rng.uniform(0.085, 0.108)
    hip_width = rng.uniform(0.050, 0.066)
    legs = LEGS[
        UPRIGHT_LEGS[rng.integers(len(UPRIGHT_LEGS))]
        if upright
        else tuple(LEGS)[rng.integers(len(LEGS))]
    ]
    chest = (
        rotation(1, rng.uniform(-15, 15))
        @ rotation(0, -rng.uniform(*legs.lean))
        @ rotation(2, rng.uniform(-6, 6) * (1 if upright else 3))
    )
    view = (
        rotation(1, rng.uniform(-turn, turn) + (180 if back else 0))
        @ rotation(0, rng.uniform(-10, 2))
        @ rotation(2, rng.uniform(-7, 7) if upright else _roll(rng))
    )

    points = np.zeros((len(POINTS), 3))
    knee, ankle, toe = _legs(rng, legs, thigh, shin)
    hips = SIDES[:, None] * [hip_width, 0, 0]
    elbow, wrist, hand = (
        part @ chest
        for part in _arms(
            rng, UPRIGHT_ARMS if upright else tuple(ARMS), (spine + shin) * rng.uniform(0.58, 0.66)
        )
    )
    neck = np.array([0, -spine, 0]) @ chest
    shoulders = neck + (SIDES[:, None] * [shoulder_width, 0, 0] + [0, 0.022, 0]) @ chest
    nod = rotation(0, rng.uniform(-12, 12)) @ rotation(2, rng.uniform(-10, 10))
    face = rotation(1, rng.uniform(-25, 25)) @ nod @ chest
    half_height = head_height / 2
    half_width = head_height * rng.uniform(0.385, 0.43)
    center = neck + [0, -neck_length * 0.9, 0] @ chest + [0, -half_height * 0.92, 0] @ face
    points[ON_HEAD] = center + (_HEAD * [half_width, half_height, half_width]) @ face
    arm = {
        "shoulder": shoulders,
        "elbow": shoulders + elbow,
        "wrist": shoulders + wrist,
        "hand": shoulders + hand,
    }
    leg = {"hip": hips, "knee": hips + knee, "ankle": hips + ankle, "toe": hips + toe}
    for name, pair in {**arm, **leg}.items():
        points[[POINT["left_" + name], POINT["right_" + name]]] = pair
    points[POINT["neck"]] = neck
    return Figure(
        points @ view,
        chest @ view,
        view,
        face @ view,
        (half_width, half_height),
        rng.uniform(0.85, 1.25),
    )


def _roll(rng: np.random.Generator) -> float:
    """How far somebody leans in the image's plane: most a little, some lie, one in twelve at any
    angle.
    """
    kind = rng.random()
    if kind < 0.80:
        return rng.uniform(-18, 18)
    return (
        rng.uniform(70, 110) * (1 if kind < 0.86 else -1) if kind < 0.92 else rng.uniform(-180, 180)
    )


def face_visible(figure: Figure) -> NDArray[np.bool_]:
    """(5,): which of nose, eyes and ears the head does not hide; the nose shows in profile, ears
    show from behind.
    """
    normals = np.array([[0, 0, 1.0], [0.42, 0, 0.9], [-0.42, 0, 0.9], [1.0, 0, 0], [-1.0, 0, 0]])
    return (normals @ figure.head)[:, 2] > [-0.05, 0.05, 0.05, -0.35, -0.35]


def place(figure: Figure, size: float, origin: ArrayLike) -> Array:
    """The figure's points (len(POINTS), 2) in pixels, its pelvis at origin (x, y)."""
    placed: Array = np.asarray(origin, np.float64) + figure.points[:, :2] * size
    return placed
