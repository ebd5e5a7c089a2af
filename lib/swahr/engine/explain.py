"""What the network sees in an image, as one panel: heatmaps, scale maps, tags, and how joints are
grouped into people, step by step. For people who look for the reason of a wrong joint.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from swahr.codec.decode import People
from swahr.codec.grouping import PeakOfJoint
from swahr.codec.maps import Maps
from swahr.codec.peaks import Peaks
from swahr.data.images import Image, normalize
from swahr.inference.predictor import Prediction, Predictor, PreparedBatch
from swahr.skeleton import Skeleton
from swahr.visualize import (
    FONT,
    caption,
    draw_heatmap,
    draw_people,
    draw_points,
    draw_scale_map,
    draw_tags,
    fit,
    make_grid,
    person_colors,
)

CELL = 340  # px of the longer side of each image of the panel
COLUMNS = 5  # of images that are wider than high
PLOT_HEIGHT = 320
MARGIN = 48  # px around the plot of tags
DOT = 4  # px, radius of a joint
NAME_SCALE = 0.36  # OpenCV's size of the font of a joint's name
RING = 9  # px, radius of a joint that was given in this step
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (200, 200, 200)

Floats = NDArray[np.float32]


class Explanation(NamedTuple):
    """The people of an image, and what the network sees in it. panel: (H, W, 3) uint8 RGB."""

    prediction: Prediction
    panel: Image


class _Grouping(NamedTuple):
    """What the decoder made of the maps. order: the joints in the order of grouping."""

    peaks: Peaks
    peak_of_joint: PeakOfJoint
    order: Sequence[int]


def explain(
    predictor: Predictor, image: Image, skeleton: Skeleton, threshold: float = 0.0
) -> Explanation:
    """The people of an image (H, W, 3) uint8 RGB, and what leads to them.

    predictor: its network must be the plain one (TEST.FUSE False), where scale maps are wanted.
    skeleton: of the people. threshold: lowest score of the people that are drawn; grouping is shown
    with all of them. Raises PredictionError as Predictor.prepare.
    """
    [(_, batch)] = predictor.prepare([image])
    maps = predictor.whole_maps(batch)
    [prediction] = predictor.decode(batch, maps)
    people, numbers = _numbered(predictor.whole_decoder, maps)
    height, width = maps.heatmaps.shape[2:]
    whole = cv2.resize(batch.images[0][0].numpy(), (width, height), interpolation=cv2.INTER_AREA)
    small = fit(whole, CELL)  # type: ignore[arg-type]
    heatmaps = maps.heatmaps[0].cpu().numpy()
    names = [*skeleton.keypoints, "center"][: len(heatmaps)]
    scales = _scale_maps(predictor, batch)
    overview = _overview(small, people, numbers, maps, scales, skeleton, threshold)
    cells = _heatmap_cells(small, heatmaps, names)
    columns = max(1, COLUMNS * CELL // small.shape[1])  # more of upright images
    sections = [make_grid(overview, columns), make_grid(cells, columns)]
    grouping = _grouping(predictor, maps)
    if grouping is not None:
        sections.append(plot_tags(grouping.peaks, grouping.peak_of_joint, grouping.order, names))
        sections.append(make_grid(_steps(small, (width, height), grouping, names), columns))
    return Explanation(prediction, make_grid(sections, 1, pad=16))


def _numbered(decoder: Any, maps: Maps) -> tuple[People, NDArray[np.int64]]:
    """The people of one image, and the number that each has in grouping, before those who were
    found twice are dropped.
    """
    if not hasattr(decoder, "kept"):
        [people] = decoder(maps)
        return people, np.arange(len(people.scores))
    everybody = copy.copy(decoder)
    everybody.oks_nms = 0
    [people] = everybody(maps)
    kept = decoder.kept(people)
    return People(people.keypoints[kept], people.scores[kept]), kept


def _overview(
    image: Image,
    people: People,
    numbers: NDArray[np.int64],
    maps: Maps,
    scales: Floats | None,
    skeleton: Skeleton,
    threshold: float,
) -> list[Image]:
    """The people, the best heatmap, the scale maps if there are any, and the tags, with captions.

    people: in pixels of the maps. numbers: by which the plot and the steps of grouping call them.
    """
    heatmaps = maps.heatmaps[0].cpu().numpy()
    zoom = image.shape[1] / heatmaps.shape[2]
    shown = np.flatnonzero(people.scores >= threshold)
    keypoints = people.keypoints[shown, : skeleton.num_keypoints] * (zoom, zoom, 1)
    drawn = draw_people(image, keypoints, skeleton, people.scores[shown], ids=numbers[shown])
    cells = {
        f"{len(shown)} of {len(people.scores)} people": drawn,
        f"heatmaps, up to {heatmaps.max():.2f}": draw_heatmap(image, heatmaps, _limit(heatmaps)),
    }
    if scales is not None:
        cells["scale maps (red: narrower)"] = draw_scale_map(image, scales)
    if maps.tags is not None:
        cells["tags (colour: value)"] = draw_tags(image, maps.tags[0, ..., 0].cpu(), heatmaps)
    return [_titled(title, cell) for title, cell in cells.items()]


def _heatmap_cells(image: Image, heatmaps: Floats, names: Sequence[str]) -> list[Image]:
    limit = _limit(heatmaps)
    return [
        _titled(f"{name}, up to {heatmap.max():.2f}", draw_heatmap(image, heatmap, limit))
        for name, heatmap in zip(names, heatmaps)
    ]


def _limit(heatmaps: Floats) -> float:
    """The value that is drawn in red, the same for all heatmaps."""
    return max(float(heatmaps.max()), 0.1)


def _titled(title: str, image: Image) -> Image:
    return make_grid([caption(title, image.shape[1]), image], 1, pad=0)


@torch.inference_mode()
def _scale_maps(predictor: Predictor, batch: PreparedBatch) -> Floats | None:
    """The scale maps (K, h, w) of the highest resolution that has them; testing drops them."""
    images = batch.images[0].to(predictor.device)
    inputs = normalize(images, torch.channels_last).to(predictor.input_dtype)
    found = [stage.scales for stage in predictor.model(inputs) if stage.scales is not None]
    return found[-1][0].float().cpu().numpy() if found else None


def _grouping(predictor: Predictor, maps: Maps) -> _Grouping | None:
    """The steps of a decoder that groups peaks by tags; None of others."""
    decoder: Any = predictor.whole_decoder
    if maps.tags is None or not hasattr(decoder, "grouped"):
        return None
    heatmaps, tags = (
        values[0].float().contiguous().cpu().numpy() for values in (maps.heatmaps, maps.tags)
    )
    peaks, peak_of_joint = decoder.grouped(heatmaps, tags)
    return _Grouping(peaks, peak_of_joint, [int(joint) for joint in decoder.grouping_order])


def _steps(
    image: Image, size: tuple[int, int], grouping: _Grouping, names: Sequence[str]
) -> list[Image]:
    """An image for each joint, in the order of grouping: the joints that people have so far as
    dots, those that they get in this step with a ring and the number of the person.

    size: (w, h) of the maps.
    """
    peaks, peak_of_joint, order = grouping
    zoom = image.shape[1] / size[0]
    colors = [person_colors(index)[0] for index in range(len(peak_of_joint))]
    cells = []
    canvas = image
    for step, joint in enumerate(order, start=1):
        people = np.flatnonzero(peak_of_joint[:, joint] >= 0)
        pixels = peaks.pixels[joint, peak_of_joint[people, joint]]
        points = np.stack([pixels % size[0], pixels // size[0]], axis=1) * zoom
        chosen = [colors[person] for person in people]
        canvas = draw_points(canvas, points, chosen, DOT)
        shown = draw_points(canvas, points, chosen, RING, [str(person) for person in people])
        title = f"{step}. {names[joint]}: {peaks.counts[joint]} peaks"
        cells.append(_titled(title, shown))
    return cells


def plot_tags(
    peaks: Peaks, peak_of_joint: PeakOfJoint, order: Sequence[int], names: Sequence[str]
) -> Image:
    """A plot of tags: a column for each joint in the order of grouping, a dot for each of its peaks
    in the colour of its person, at the height of its tag; lines join the dots of a person.

    A dot far from its line is a joint that was given to the wrong person; two lines close to each
    other are people that the network cannot tell apart. The tag is that of the image as it is, not
    of the mirrored one.
    """
    width = COLUMNS * CELL
    canvas = np.full((PLOT_HEIGHT + 2 * MARGIN, width, 3), 255, np.uint8)
    known = np.arange(peaks.tags.shape[1]) < peaks.counts[:, None]
    values = peaks.tags[..., 0]
    shown = values[known]
    low = float(shown.min()) if shown.size else 0.0
    high = float(shown.max()) if shown.size else 1.0
    step = (width - 2 * MARGIN) / max(len(order), 1)
    columns = MARGIN + step * (np.argsort(np.asarray(order)) + 0.5)  # of the joints
    rows = MARGIN + PLOT_HEIGHT * (high - values) / max(high - low, 1e-6)
    for joint in order:
        _tick(canvas, names[joint], columns[joint], step)
    for value, row in ((high, MARGIN), (low, MARGIN + PLOT_HEIGHT)):
        cv2.putText(canvas, f"{value:.1f}", (4, row), FONT, 0.4, BLACK, 1)
    first_points = []
    colors = [person_colors(person)[0] for person in range(len(peak_of_joint))]
    for color, own in zip(colors, peak_of_joint):
        joints = [joint for joint in order if own[joint] >= 0]
        points = np.array([(columns[joint], rows[joint, own[joint]]) for joint in joints])
        line = [np.round(points).astype(np.int32)]
        cv2.polylines(canvas, line, False, color, 1, cv2.LINE_AA)
        canvas = draw_points(canvas, points, [color] * len(points), DOT)
        first_points.append(points[0])
    numbers = [str(person) for person in range(len(colors))]
    canvas = draw_points(canvas, first_points, colors, RING, numbers)
    title = "tags of the joints, coloured by person, in the order of grouping"
    return make_grid([caption(title, width), canvas], 1, pad=0)


def _tick(canvas: Image, name: str, x: float, step: float) -> None:
    """A grey line for a joint, with its name centred below it, as large as fits; in place."""
    column = round(x)
    bottom = MARGIN + PLOT_HEIGHT
    cv2.line(canvas, (column, MARGIN), (column, bottom), GREY, 1)
    (width, _), _ = cv2.getTextSize(name, FONT, NAME_SCALE, 1)
    shrink = min(1, (step - 4) / width)
    corner = (round(x - shrink * width / 2), bottom + 20)
    cv2.putText(canvas, name, corner, FONT, shrink * NAME_SCALE, BLACK, 1, cv2.LINE_AA)
