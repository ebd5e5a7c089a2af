"""A person in space: proportions, poses, and the positions of its joints seen from the camera.

Lengths are in heights of the standing person, angles in degrees. Body axes: x to the person's left,
y down, z forward. Camera axes: x right, y down, z towards the camera. At yaw 0 a person looks into
the camera, and its left side is on the right of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swahr.skeleton import COCO
from swahr.synthetic.shapes import Array

Range = tuple[float, float]

# All points of a figure. The first 19 can be keypoints of a skeleton, under these names.
POINTS = (
    *COCO.keypoints,
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
ON_HEAD = [*range(5), POINT["head"], POINT["head_center"], POINT["mouth"]]
# Positions of the points of ON_HEAD in head axes, in units of the head's half axes.
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
SIDES = np.array([1.0, -1.0])  # sign of body x on the left and on the right


class Arm(NamedTuple):
    """Ranges of an arm's angles.

    swing: forward. spread: sideways. bend: of the elbow. turn: direction of the bend, forward (0),
    inwards (90) or outwards (-90).
    """

    swing: Range
    spread: Range
    bend: Range
    turn: Range


class Legs(NamedTuple):
    """Ranges of both legs' angles. lean: of the upper body, forward. opposed: the legs swing in
    opposite directions.
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


class Body(NamedTuple):
    """Proportions of a person in heights. shoulder_width, hip_width, head_width: half the width.
    build: factor on every thickness.
    """

    shin: float
    thigh: float
    spine: float
    neck: float
    arm: float
    shoulder_width: float
    hip_width: float
    head_height: float
    head_width: float
    build: float


class Pose(NamedTuple):
    """Angles of a pose.

    chest: twist, forward lean (negative) and tilt against the pelvis. view: yaw, pitch and roll of
    the whole person. head: yaw, nod and roll against the chest. arms: (2, 4) swing, spread, bend
    and turn of the left and the right arm, as in Arm. legs: (2, 3) swing, spread and bend.
    """

    chest: tuple[float, float, float]
    view: tuple[float, float, float]
    head: tuple[float, float, float]
    arms: Array
    legs: Array


class Figure(NamedTuple):
    """One posed person, in camera axes.

    points: (len(POINTS), 3) in heights, with the pelvis at 0. chest, pelvis, head: (3, 3), whose
    rows are the axes left, down and forward of that part. head_radii: half width and half height.
    build: factor on every thickness.
    """

    points: Array
    chest: Array
    pelvis: Array
    head: Array
    head_radii: tuple[float, float]
    build: float


def rotation(axis: int, degrees: float) -> Array:
    """The matrix (3, 3) that turns row vectors, v @ R, around an axis (0 x, 1 y, 2 z)."""
    cos = np.cos(np.deg2rad(degrees))
    sin = np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    i = (axis + 1) % 3
    j = (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos, sin, -sin, cos
    return matrix


def _limb_axes(swing: Array, spread: Array) -> tuple[Array, Array, Array]:
    """Directions (2, 3) of two limbs, of their forward side and of their outward side.

    swing, spread: angles (2,); at 0 a limb hangs down.
    """
    a = np.deg2rad(swing)
    b = np.deg2rad(spread)
    zero = np.zeros(2)
    along = np.stack([SIDES * np.sin(b), np.cos(b) * np.cos(a), np.cos(b) * np.sin(a)], axis=1)
    forward = np.stack([zero, -np.sin(a), np.cos(a)], axis=1)
    outward = np.stack([SIDES * np.cos(b), -np.sin(b) * np.cos(a), -np.sin(b) * np.sin(a)], axis=1)
    return along, forward, outward


def _arm_points(angles: Array, length: float) -> tuple[Array, Array, Array]:
    """Elbows, wrists and hands (2, 3) from the shoulders, in chest axes. angles: see Pose.arms."""
    along, forward, outward = _limb_axes(angles[:, 0], angles[:, 1])
    bend = np.deg2rad(angles[:, 2:3])
    turn = np.deg2rad(angles[:, 3:4])
    fore = np.cos(bend) * along + np.sin(bend) * (np.cos(turn) * forward - np.sin(turn) * outward)
    elbow = 0.52 * length * along
    wrist = elbow + 0.48 * length * fore
    return elbow, wrist, wrist + 0.13 * length * fore


def _leg_points(angles: Array, thigh: float, shin: float) -> tuple[Array, Array, Array]:
    """Knees, ankles and toes (2, 3) from the hips, in pelvis axes. angles: see Pose.legs."""
    along, forward, _ = _limb_axes(angles[:, 0], angles[:, 1])
    bend = np.deg2rad(angles[:, 2:3])
    lower = np.cos(bend) * along - np.sin(bend) * forward
    toward = np.cos(bend) * forward + np.sin(bend) * along
    knee = thigh * along
    ankle = knee + shin * lower
    return knee, ankle, ankle + 0.075 * toward + 0.03 * lower


def build_figure(body: Body, pose: Pose) -> Figure:
    """The figure of a body in a pose, in camera axes."""
    twist, lean, tilt = pose.chest
    chest = rotation(1, twist) @ rotation(0, lean) @ rotation(2, tilt)
    yaw, pitch, roll = pose.view
    view = rotation(1, yaw) @ rotation(0, pitch) @ rotation(2, roll)
    head_yaw, nod, head_roll = pose.head
    face = rotation(1, head_yaw) @ (rotation(0, nod) @ rotation(2, head_roll)) @ chest

    points = np.zeros((len(POINTS), 3))
    knee, ankle, toe = _leg_points(pose.legs, body.thigh, body.shin)
    hips = SIDES[:, None] * [body.hip_width, 0, 0]
    elbow, wrist, hand = (part @ chest for part in _arm_points(pose.arms, body.arm))
    neck = np.array([0, -body.spine, 0]) @ chest
    shoulders = neck + (SIDES[:, None] * [body.shoulder_width, 0, 0] + [0, 0.022, 0]) @ chest
    half_height = body.head_height / 2
    half_width = body.head_width
    center = neck + [0, -body.neck * 0.9, 0] @ chest + [0, -half_height * 0.92, 0] @ face
    points[ON_HEAD] = center + (_HEAD * [half_width, half_height, half_width]) @ face
    pairs = {
        "shoulder": shoulders,
        "elbow": shoulders + elbow,
        "wrist": shoulders + wrist,
        "hand": shoulders + hand,
        "hip": hips,
        "knee": hips + knee,
        "ankle": hips + ankle,
        "toe": hips + toe,
    }
    for name, pair in pairs.items():
        points[[POINT["left_" + name], POINT["right_" + name]]] = pair
    points[POINT["neck"]] = neck
    return Figure(
        points @ view, chest @ view, view, face @ view, (half_width, half_height), body.build
    )


def sample_person(
    rng: np.random.Generator, *, upright: bool, back: bool, turn: float
) -> tuple[Body, Pose]:
    """Draw the proportions of a person and a pose.

    upright: standing or walking, nearly vertical; else any pose, also sitting, running or lying.
    back: seen from behind. turn: largest angle in degrees by which the person is turned to either
    side from there.
    """
    relative_head = rng.uniform(1.0, 1.3)
    lengths = np.array([0.045, 0.225, 0.235, 0.285, 0.055, 0.150 * relative_head])
    lengths = lengths * rng.uniform(0.94, 1.06, size=6)
    _, shin, thigh, spine, neck, head_height = lengths / lengths.sum()  # the first is the sole
    shoulder_width = rng.uniform(0.085, 0.108)
    hip_width = rng.uniform(0.050, 0.066)
    names = UPRIGHT_LEGS if upright else tuple(LEGS)
    legs = LEGS[names[rng.integers(len(names))]]
    twist = rng.uniform(-15, 15)
    lean = -rng.uniform(*legs.lean)
    tilt = rng.uniform(-6, 6) * (1 if upright else 3)
    yaw = rng.uniform(-turn, turn) + (180 if back else 0)
    pitch = rng.uniform(-10, 2)
    roll = rng.uniform(-7, 7) if upright else _sample_roll(rng)
    leg_angles = _sample_legs(rng, legs)
    arm = (spine + shin) * rng.uniform(0.58, 0.66)
    arm_angles = _sample_arms(rng, UPRIGHT_ARMS if upright else tuple(ARMS))
    nod = rng.uniform(-12, 12)
    head_roll = rng.uniform(-10, 10)
    head_yaw = rng.uniform(-25, 25)
    head_width = head_height * rng.uniform(0.385, 0.43)
    build = rng.uniform(0.85, 1.25)
    body = Body(
        shin=shin,
        thigh=thigh,
        spine=spine,
        neck=neck,
        arm=arm,
        shoulder_width=shoulder_width,
        hip_width=hip_width,
        head_height=head_height,
        head_width=head_width,
        build=build,
    )
    pose = Pose(
        chest=(twist, lean, tilt),
        view=(yaw, pitch, roll),
        head=(head_yaw, nod, head_roll),
        arms=arm_angles,
        legs=leg_angles,
    )
    return body, pose


def sample_figure(rng: np.random.Generator, *, upright: bool, back: bool, turn: float) -> Figure:
    """Draw a person and build its figure; the arguments are those of sample_person."""
    return build_figure(*sample_person(rng, upright=upright, back=back, turn=turn))


def _sample_arms(rng: np.random.Generator, names: tuple[str, ...]) -> Array:
    """Angles (2, 4) of the arms: in half of the cases both have the same named pose."""
    left = ARMS[names[rng.integers(len(names))]]
    right = left if rng.random() < 0.5 else ARMS[names[rng.integers(len(names))]]
    return np.array([[rng.uniform(*limits) for limits in arm] for arm in (left, right)])


def _sample_legs(rng: np.random.Generator, pose: Legs) -> Array:
    """Angles (2, 3) of the legs."""
    swing = rng.uniform(*pose.swing, size=2)
    if pose.opposed:
        swing *= SIDES * (1 if rng.random() < 0.5 else -1)
    spread = rng.uniform(*pose.spread, size=2)
    bend = rng.uniform(*pose.bend, size=2)
    return np.stack([swing, spread, bend], axis=1)


def _sample_roll(rng: np.random.Generator) -> float:
    """Degrees by which a person leans in the image: 80% at most 18, 12% lie, 8% any angle."""
    kind = rng.random()
    if kind < 0.80:
        return rng.uniform(-18, 18)
    if kind < 0.92:
        return rng.uniform(70, 110) * (1 if kind < 0.86 else -1)
    return rng.uniform(-180, 180)


def face_visible(figure: Figure) -> NDArray[np.bool_]:
    """(5,): which of nose, eyes and ears the head does not hide.

    The nose is visible in profile too, and the ears from behind.
    """
    normals = np.array([[0, 0, 1.0], [0.42, 0, 0.9], [-0.42, 0, 0.9], [1.0, 0, 0], [-1.0, 0, 0]])
    return (normals @ figure.head)[:, 2] > [-0.05, 0.05, 0.05, -0.35, -0.35]


def to_pixels(figure: Figure, size: float, origin: ArrayLike) -> Array:
    """The figure's points (len(POINTS), 2) in pixels.

    size: standing height in px. origin: pixel (x, y) of the pelvis.
    """
    pixels: Array = np.asarray(origin, np.float64) + figure.points[:, :2] * size
    return pixels
