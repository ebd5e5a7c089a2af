"""A video of people who walk to and fro, cross and hide each other, with their identities.

It is a test of tracking: every person keeps its id, also while somebody else hides it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from swahr.files import WriteError, make_folder, write_bytes, write_text
from swahr.skeleton import COCO, Skeleton
from swahr.synthetic.background import background, distractors
from swahr.synthetic.dataset import Record, encode_jpeg, keypoint_fields
from swahr.synthetic.figure import Body, Figure, Pose, build_figure, sample_person, to_pixels
from swahr.synthetic.scene import (
    Actor,
    Look,
    SyntheticError,
    draw_actors,
    joint_indices,
    label_person,
    sample_look,
)
from swahr.synthetic.shapes import Image

FPS = 10
TRUTH = "people.json"
# Endings of video files that are not written.
OTHER_ENDINGS = (".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".webm", ".wmv")
MAX_WALKERS = 50
MIN_SIDE = 64
MAX_SIDE = 4096  # px; a square scene of this side takes 0.8 GB of memory while it is drawn
TURN_SECONDS = 0.5  # a person turns round in this time


class Walker(NamedTuple):
    """One person of the video.

    size: standing height in px. start, end: the ends of its way, x in px. ground: y of its soles in
    px. speed: px a second. offset: seconds by which it is ahead on its way. stride: px of a double
    step. twist: the angle in degrees between its way and the image plane.
    """

    body: Body
    pose: Pose
    look: Look
    size: float
    start: float
    end: float
    ground: float
    speed: float
    offset: float
    stride: float
    twist: float


def render_walk(
    seed: int,
    *,
    num_frames: int,
    num_people: int = 5,
    size: tuple[int, int] = (640, 480),
    skeleton: Skeleton = COCO,
) -> Iterator[tuple[Image, list[Record]]]:
    """Frames (H, W, 3) uint8 RGB, ten a second, each with its visible people.

    A person has its id (0 to num_people - 1), keypoints, num_keypoints, box [x, y, w, h] around all
    of it inside the image, height (standing, px), and visible, the share of its pixels that nobody
    hides. People without visible pixels are not listed. The frames depend on the arguments only;
    the first frames do not depend on num_frames. Raises SyntheticError as render_scene does.
    """
    if num_frames < 1 or not 1 <= num_people <= MAX_WALKERS:
        raise SyntheticError(
            f"{num_frames} frames of {num_people} people: it must be 1 frame or more, "
            f"and 1 to {MAX_WALKERS} people"
        )
    if seed < 0:
        raise SyntheticError(f"seed: {seed} must be 0 or more")
    if min(size) < MIN_SIDE or max(size) > MAX_SIDE:
        raise SyntheticError(
            f"size: {size[0]} x {size[1]} px; the sides of a video have {MIN_SIDE} to {MAX_SIDE} px"
        )
    joints = joint_indices(skeleton)
    rng = np.random.default_rng([seed])
    width, height = size
    scenery, horizon = background(rng, width, height, clutter=1.0)
    distractors(rng, scenery, 4)
    walkers = [_sample_walker(rng, i, num_people, size, horizon) for i in range(num_people)]
    for frame in range(num_frames):
        image = scenery.copy()
        actors = [_actor(walker, frame / FPS) for walker in walkers]
        owner, drawn = draw_actors(image, actors, [walker.look for walker in walkers])
        people = []
        for i, (actor, shown) in enumerate(zip(actors, drawn, strict=True)):
            mask = owner == i + 1
            person = label_person(actor, shown, mask, joints)
            if person is not None:
                share = np.count_nonzero(mask) / shown.area
                people.append(
                    {
                        "id": i,
                        **keypoint_fields(person),
                        "box": list(person.box),
                        "height": person.height,
                        "visible": round(share, 4),
                    }
                )
        yield image, people


def _sample_walker(
    rng: np.random.Generator, index: int, count: int, size: tuple[int, int], horizon: int
) -> Walker:
    """Draw a walker; the first one is farthest from the camera.

    Neighbours in depth differ little in height, so that they hide each other where they cross.
    """
    width, height = size
    body, pose = sample_person(rng, upright=True, back=False, turn=0)
    depth = (index + 0.5) / count
    tall = height * (0.38 + 0.30 * depth) * rng.uniform(0.92, 1.08)
    margin = 0.25 * tall
    ends = (margin + rng.uniform(0, 0.15) * width, width - margin - rng.uniform(0, 0.15) * width)
    start, end = ends if index % 2 else ends[::-1]
    low = max(float(horizon), 0.62 * height)
    return Walker(
        body=body,
        pose=pose,
        look=sample_look(rng, marked=0.5),
        size=tall,
        start=start,
        end=end,
        ground=low + (0.97 * height - low) * depth,
        speed=tall * rng.uniform(0.35, 0.65),
        offset=rng.uniform(0, 3),
        stride=tall * rng.uniform(0.62, 0.78),
        twist=rng.uniform(10, 30),
    )


def _actor(walker: Walker, seconds: float) -> Actor:
    """The walker at a time: it walks to the end of its way, turns round, and comes back."""
    length = abs(walker.end - walker.start)
    lap = length / walker.speed + TURN_SECONDS
    laps, rest = divmod(seconds + walker.offset, lap)
    walked = min(rest * walker.speed, length)
    turned = max(0.0, (rest - length / walker.speed) / TURN_SECONDS)  # 0 to 1
    origin, goal = (walker.start, walker.end) if laps % 2 == 0 else (walker.end, walker.start)
    x = origin + (walked if goal > origin else -walked)
    # At yaw 0 a person faces the camera; at 90 it faces the right of the image.
    yaw = (90 - walker.twist) * (1 if goal > origin else -1) * (1 - 2 * turned)
    phase = 2 * np.pi * (laps * length + walked) / walker.stride
    figure = _stride(walker, float(phase), yaw, moving=turned == 0)
    soles = float(figure.points[:, 1].max()) * walker.size
    points = to_pixels(figure, walker.size, (x, walker.ground - soles))
    return Actor(figure, walker.size, points, labelled=True, crowd=False)


def _stride(walker: Walker, phase: float, yaw: float, *, moving: bool) -> Figure:
    """The walker at a phase of its double step (2 pi); it stands while it turns round."""
    swing = np.array([np.sin(phase), -np.sin(phase)]) * (1 if moving else 0)  # left, right
    forward = np.array([np.cos(phase), -np.cos(phase)]) * (1 if moving else 0)
    legs = np.stack([24 * swing, [3, 3], 6 + 34 * np.maximum(forward, 0)], axis=1)
    arms = np.stack([-26 * swing, [8, 8], 18 + 10 * np.abs(swing), [20, 20]], axis=1)
    pose = walker.pose._replace(view=(yaw, -4.0, 0.0), legs=legs, arms=arms)
    return build_figure(walker.body, pose)


def write_video(
    out: str | Path,
    *,
    num_frames: int = 100,
    num_people: int = 5,
    seed: int = 0,
    size: tuple[int, int] = (640, 480),
) -> Path:
    """Write a walk and its truth; return the path of the truth.

    out: a folder, which gets frames/000000.jpg, ... and people.json, the same bytes on every
    machine; or a file ending in .mp4, with the truth in a .json file of the same name beside it.
    Raises SyntheticError for another ending of a video file, where the folder holds other frames or
    another file has the name of the truth, and as render_walk does; WriteError.
    """
    out = Path(out)
    ending = out.suffix.lower()
    if ending in OTHER_ENDINGS:
        raise SyntheticError(
            f"{out}: a video is written as .mp4, not as {ending}; give a file.mp4 or a folder"
        )
    is_file = ending == ".mp4"
    frames = render_walk(seed, num_frames=num_frames, num_people=num_people, size=size)
    records: list[Record] = []
    data = {
        "fps": FPS,
        "seed": seed,
        "width": size[0],
        "height": size[1],
        "keypoints": list(COCO.keypoints),
        "frames": records,
    }
    truth = out.with_suffix(".json") if is_file else out / TRUTH
    there = os.path.lexists(truth)
    if there and not _is_truth(truth):
        raise SyntheticError(
            f"{truth}: exists and is not the truth of a synthetic video; choose another --out"
        )
    present = set() if is_file else {path.name for path in (out / "frames").glob("*")}
    own = {f"{i:06d}.jpg" for i in range(num_frames)} if there else set()
    others = sorted(present - own)
    if others:
        raise SyntheticError(f"{out}/frames holds other files ({others[0]}); choose another folder")
    writer = None
    if is_file:
        make_folder(out.parent)
        writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
        if not writer.isOpened():
            raise WriteError(f"{out}: OpenCV cannot write this video; give a folder instead")
    else:  # without frames so far: the mark by which the next call knows those of this one
        write_text(truth, json.dumps(data))
    for i, (image, people) in enumerate(frames):
        record: dict[str, Any] = {"frame": i, "time": round(i / FPS, 3)}
        if writer is not None:
            writer.write(np.ascontiguousarray(image[..., ::-1]))
        else:
            record["file_name"] = f"frames/{i:06d}.jpg"
            write_bytes(out / record["file_name"], encode_jpeg(image), durable=False)
        records.append({**record, "people": people})
    if writer is not None:
        writer.release()
    write_text(truth, json.dumps(data))
    return truth


def _is_truth(path: Path) -> bool:
    """Whether `write_video` wrote a file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"fps", "frames"} <= content.keys()
