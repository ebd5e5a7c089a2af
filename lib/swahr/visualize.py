"""Drawings of people, heatmaps, scale maps and tag maps, and panels for training.

Images are (H, W, 3) uint8 RGB; public functions do not change them. Maps are arrays or CPU tensors
of any size, and are resized to the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from swahr.files import write_bytes
from swahr.skeleton import Skeleton

Image = NDArray[np.uint8]
Maps = NDArray[np.float32]
Color = tuple[int, int, int]
Points = NDArray[np.int32]  # (..., 2) in 1/16 px

SHIFT = 4  # fractional bits of a drawn coordinate
TEXT_SHARE = 1 / 1600  # size of OpenCV's font for each pixel of the image's longer side
MIN_TEXT = 0.3  # the smallest size that can be read
LABEL_SHARE = 0.045  # size of a label's font for each pixel of the radius of its point
FONT = cv2.FONT_HERSHEY_SIMPLEX
DARK = (20, 20, 20)  # outlines
SIDES = {"left": 1, "right": 2}  # first parts of the names of keypoints
MAX_DASHES = 50  # of a limb
FARTHEST = 1 << 20  # px from the image's corner; OpenCV cannot draw at any distance
CAPTIONS = ("input", "target", "heatmap", "scale", "tag")
SCALE_LIMIT = 0.5  # value of the scale map that is drawn in full colour


def draw_people(
    image: Image,
    keypoints: ArrayLike,
    skeleton: Skeleton,
    scores: ArrayLike | None = None,
    threshold: float = 0.0,
    boxes: bool = False,
    *,
    unsure: float = 0.0,
    ids: ArrayLike | None = None,
) -> Image:
    """A copy of the image with people drawn on it, each in a hue of its own, or all in the colours
    of the skeleton: a limb has that of its second keypoint.

    Left limbs are lighter than right ones, and lines are thicker on larger people. keypoints: (P,
    K, 3) x, y in image pixels and a score or visibility; joints at or below `threshold`, and their
    limbs, are not drawn. Further joints at or below `unsure` are rings, and their limbs are dashed.
    scores: (P,), written above the people; people with higher scores are drawn over others. ids:
    (P,), whole numbers that are written there too and choose the hues; -1 for none. What is written
    moves up or down where it would cover that of people with higher scores. boxes: whether boxes
    are drawn. Raises ValueError if there are fewer joints than the skeleton has; further
    ones (a centre) are not drawn.
    """
    canvas = _checked(image).copy()
    people = np.asarray(keypoints, np.float64)
    if people.size == 0:
        return canvas
    if people.ndim != 3 or people.shape[1] < skeleton.num_keypoints or people.shape[2] != 3:
        wanted = f"(P, {skeleton.num_keypoints}, 3)"
        raise ValueError(
            f"keypoints: shape {people.shape}; skeleton {skeleton.name} needs {wanted}"
        )
    people = people[:, : skeleton.num_keypoints]
    hues = range(len(people)) if ids is None else np.asarray(ids).ravel().tolist()
    labels = _labels(len(people), scores, ids)
    look = _look(skeleton)
    shown = (people[..., 2] > threshold) & np.isfinite(people).all(axis=2)
    sure = people[..., 2] > unsure
    people = _near(people)
    drawn = [i for i in _rising(len(people), scores) if shown[i].any()]
    looks = {i: look.of_person(hues[i]) for i in drawn}
    for i in drawn:
        _draw_person(canvas, people[i], shown[i], sure[i], looks[i], boxes)
    scale = max(MIN_TEXT, TEXT_SHARE * max(_size(canvas)))
    taken: list[_Box] = []
    for i in reversed(drawn):
        low, high = _extent(people[i], shown[i])
        if labels[i] and (high >= 0).all() and (low < _size(canvas)).all():
            above = (round(low[0]), round(low[1] - 12 * scale))
            taken.append(_free_place(_text_box(canvas, labels[i], above, scale), taken, canvas))
            _write(canvas, labels[i], taken[-1].corner, looks[i].label, scale)
    return canvas


def draw_points(
    image: Image,
    points: ArrayLike,
    colors: Sequence[Color],
    radius: float,
    labels: Sequence[str] = (),
) -> Image:
    """A copy of the image with points (N, 2), in pixels, as discs with a dark rim, or as rings with
    labels beside them if there are any.

    colors: (r, g, b) from 0 to 255 for each point. radius: px. labels: a text for each point; none
    draws discs.
    """
    canvas = _checked(image).copy()
    places = _fixed(_near(np.asarray(points, np.float64).reshape(-1, 2))).tolist()
    for place, color in zip(places, colors):
        if labels:
            _ring(canvas, place, radius, color)
        else:
            _disc(canvas, place, radius, color)
    scale = max(MIN_TEXT, LABEL_SHARE * radius)
    for place, color, label in zip(places, colors, labels):
        x, y = (value >> SHIFT for value in place)
        box = _text_box(canvas, label, (x + round(_rim(radius)) + 3, y), scale)
        _write(canvas, label, box.corner, color, scale)
    return canvas


def draw_heatmaps(
    image: Image, heatmaps: ArrayLike, columns: int | None = None, limit: float = 1.0
) -> Image:
    """A grid of images, one with each heatmap of (K, h, w) over it, from blue (0) to red (limit).

    A copy of the image if K = 0.
    """
    maps = _maps(heatmaps)
    cells = [_over(image, _jet(_stretch(values, image) / limit)) for values in maps]
    return (
        make_grid(cells, columns or int(np.ceil(np.sqrt(len(cells)))))
        if cells
        else _checked(image).copy()
    )


def draw_heatmap(image: Image, heatmaps: ArrayLike, limit: float = 1.0) -> Image:
    """The maximum of all heatmaps (K, h, w) over the image, from blue (0) to red (limit)."""
    maps = _maps(heatmaps)
    return (
        _over(image, _jet(_stretch(maps.max(axis=0), image) / limit))
        if len(maps)
        else _checked(image).copy()
    )


def draw_scale_map(image: Image, scales: ArrayLike, limit: float = SCALE_LIMIT) -> Image:
    """Scale maps (K, h, w) over the image, red above 0 and blue below.

    A value above 0 narrows the joint's Gaussian, one below 0 widens it. Each pixel shows the value
    that is farthest from 0; full colour from `limit` on.
    """
    maps = _maps(scales)
    if not len(maps):
        return _checked(image).copy()
    farthest = np.take_along_axis(maps, np.abs(maps).argmax(axis=0)[None], axis=0)[0]
    value = np.clip(_stretch(farthest, image) / limit, -1, 1)[..., None]
    color = np.where(value > 0, np.array([235, 40, 30]), np.array([30, 70, 240]))
    return _blend(_checked(image), color, np.abs(value))


def draw_tags(image: Image, tags: ArrayLike, heatmaps: ArrayLike | None = None) -> Image:
    """Tag maps (C, h, w) over the image, from the lowest value (blue) to the highest (red).

    With heatmaps (K, h, w), each pixel shows the tag of the joint with the highest heatmap, as
    opaque as that heatmap is high. Without, the first channel is shown everywhere.
    """
    maps = _maps(tags)
    if not len(maps):
        return _checked(image).copy()
    values = maps[0]
    strength = np.ones((1, 1), np.float32)
    if heatmaps is not None and np.size(heatmaps):
        heat = _maps(heatmaps)
        heat = (
            heat
            if heat.shape[1:] == maps.shape[1:]
            else np.stack([_stretch(values, maps[0]) for values in heat])
        )
        if len(maps) == len(heat):
            values = np.take_along_axis(maps, heat.argmax(axis=0)[None], axis=0)[0]
        strength = np.clip(heat.max(axis=0) * 1.5, 0, 1)
    shown = values[np.broadcast_to(strength, values.shape) > 0.15]
    low = float(shown.min()) if shown.size else 0.0
    high = float(shown.max()) if shown.size else 1.0
    hue = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    color = _jet(cv2.resize(hue, _size(image), interpolation=cv2.INTER_NEAREST))
    return _blend(_checked(image), color, 0.85 * _stretch(strength, image)[..., None])


def panel(
    image: ArrayLike,
    target: ArrayLike,
    heatmap: ArrayLike,
    scale: ArrayLike | None = None,
    tag: ArrayLike | None = None,
    cell: int = 192,
) -> Image:
    """A row for each sample: input, target, heatmap, scale map and tag map, with captions.

    image: (B, H, W, 3) uint8. target, heatmap, scale: (B, K, h, w). tag: (B, C, h, w). A single
    sample has no B. There is no column for maps that are None. cell: pixels of the longer side of
    every image.
    """
    given = zip(CAPTIONS, (image, target, heatmap, scale, tag), strict=True)
    columns = {name: np.asarray(values) for name, values in given if values is not None}
    if columns["input"].ndim == 3:
        columns = {name: values[None] for name, values in columns.items()}
    cells: list[Image] = []
    for i, pixels in enumerate(columns["input"]):
        small = fit(_checked(pixels), cell)
        cells += [
            small,
            draw_heatmap(small, columns["target"][i]),
            draw_heatmap(small, columns["heatmap"][i]),
        ]
        if "scale" in columns:
            cells.append(draw_scale_map(small, columns["scale"][i]))
        if "tag" in columns:
            cells.append(draw_tags(small, columns["tag"][i], columns["heatmap"][i]))
    captions = [caption(name, cells[0].shape[1]) for name in columns] if cells else []
    return make_grid(captions + cells, len(columns))


def make_grid(images: Sequence[Image], columns: int, pad: int = 2) -> Image:
    """Images in rows of `columns` on white, `pad` pixels apart.

    A row is as high, and a column as wide, as its largest image.
    """
    if not images:
        return np.full((1, 1, 3), 255, np.uint8)
    rows = [images[i : i + max(1, columns)] for i in range(0, len(images), max(1, columns))]
    heights = [max(image.shape[0] for image in row) for row in rows]
    widths = [max(row[j].shape[1] for row in rows if j < len(row)) for j in range(len(rows[0]))]
    canvas = np.full(
        (sum(heights) + pad * (len(rows) - 1), sum(widths) + pad * (len(widths) - 1), 3),
        255,
        np.uint8,
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y = sum(heights[:i]) + pad * i
            x = sum(widths[:j]) + pad * j
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def fit(image: Image, longest: int) -> Image:
    """The image resized to `longest` pixels on its longer side."""
    zoom = longest / max(image.shape[:2])
    width, height = (max(1, round(side * zoom)) for side in _size(image))
    interpolation = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)


def caption(text: str, width: int) -> Image:
    """A white strip, `width` pixels wide, with a line of text."""
    strip = np.full((18, max(1, width), 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 13), FONT, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
    return strip


def save_image(path: str | Path, image: Image) -> None:
    """Write an RGB image atomically in the format of the path's suffix; ValueError if unknown;
    WriteError if the file cannot be written.
    """
    try:
        data = encode(image, Path(path).suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    write_bytes(path, data, durable=False)


def encode(image: Image, suffix: str) -> bytes:
    """The contents of an image file of an RGB image. suffix: ".png" or ".jpg".

    Raises ValueError if the format is unknown.
    """
    try:
        done, data = cv2.imencode(suffix, _checked(image)[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        raise ValueError(unknown_format(suffix))
    return data.tobytes()


def unknown_format(suffix: str) -> str:
    """What is said of the suffix of a file that no image can be written to."""
    return f"images are written as .png or .jpg, not as {suffix or 'a bare name'}"


# -- people


def person_colors(index: int) -> tuple[Color, Color, Color]:
    """RGB colours of the middle, left and right limbs of person `index`.

    Hues advance by the golden ratio, so that people with close indices differ.
    """
    hue = int(index * 0.618034 * 180 + 18) % 180
    hsv = np.array(
        [[(hue, 190, 255), ((hue + 6) % 180, 120, 255), ((hue - 6) % 180, 230, 225)]], np.uint8
    )
    middle, left, right = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].tolist()
    return tuple(middle), tuple(left), tuple(right)


class _Look(NamedTuple):
    """How people are drawn. colors: of keypoints and limbs. joints: of the K keypoints, as indices
    of colors. limbs: pairs of keypoints. lines: of the limbs, as indices of colors. label: colour
    of what is written.
    """

    colors: Sequence[Color]
    joints: Sequence[int]
    limbs: Sequence[tuple[int, int]]
    lines: Sequence[int]
    label: Color = (255, 255, 255)

    def of_person(self, hue: int) -> _Look:
        """The look of person `hue`, whose colours are its own where the skeleton gives none."""
        own = person_colors(hue)
        return self._replace(colors=self.colors or own, label=own[0])


def _look(skeleton: Skeleton) -> _Look:
    """Without colours of the skeleton, the indices are those of `person_colors`."""
    limbs = skeleton.limbs
    if skeleton.colors:
        return _Look(skeleton.colors, range(len(skeleton.colors)), limbs, [b for _, b in limbs])
    sides = _sides(skeleton)
    lines = [sides[a] if sides[a] == sides[b] else 0 for a, b in limbs]
    return _Look((), sides, limbs, lines)


def _sides(skeleton: Skeleton) -> list[int]:
    """For each keypoint 1 if it is on the left, 2 on the right, 0 in the middle: by its name, else
    by the flip pairs, whose first keypoints are taken to be the left ones.
    """
    sides = [SIDES.get(name.partition("_")[0], 0) for name in skeleton.keypoints]
    for left, right in skeleton.flip_pairs:
        if not sides[left] and not sides[right]:
            sides[left], sides[right] = 1, 2
    return sides


def _rising(count: int, scores: ArrayLike | None) -> list[int]:
    """The indices of people by rising score; in their order where scores are equal or None."""
    if scores is None:
        return list(range(count))
    return np.argsort(np.ravel(scores), kind="stable").tolist()


def _labels(count: int, scores: ArrayLike | None, ids: ArrayLike | None) -> list[str]:
    """What is written above each person: its id and its score, as far as there are any."""
    words: list[list[str]] = [[] for _ in range(count)]
    for word, identity in zip(words, () if ids is None else np.asarray(ids).ravel().tolist()):
        if identity >= 0:
            word.append(f"#{identity}")
    for word, score in zip(words, () if scores is None else np.asarray(scores).ravel().tolist()):
        word.append(f"{score:.2f}")
    return [" ".join(word) for word in words]


def _draw_person(
    canvas: Image,
    person: NDArray[np.float64],
    shown: NDArray[np.bool_],
    sure: NDArray[np.bool_],
    look: _Look,
    box: bool,
) -> None:
    """Draw the joints of a person (K, 3) where shown (K,), its limbs and box; in place."""
    low, high = _extent(person, shown)
    size = float((high - low).max())
    width = max(1, round(size * 0.012))
    ends, lines = _limbs(person, shown, sure, look, 6.0 * width)
    dark = itertools.repeat(DARK)
    _stripes(canvas, ends, width + max(1, width // 2), dark)
    _stripes(canvas, ends, width, (look.colors[line] for line in lines))
    points = _fixed(person[:, :2]).tolist()
    radius = max(1.0, size * 0.014)
    for k in np.flatnonzero(shown).tolist():
        draw = _disc if sure[k] else _ring
        draw(canvas, points[k], radius, look.colors[look.joints[k]])
    if box:
        corner, far = (
            np.clip(np.round(values), -(1 << 15), 1 << 15).astype(int).tolist()
            for values in (low, high)
        )
        cv2.rectangle(canvas, corner, far, look.label, width)


def _extent(
    person: NDArray[np.float64], shown: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest x, y of the joints (K, 3) that are shown (K,)."""
    points = person[shown, :2]
    return points.min(axis=0), points.max(axis=0)


def _limbs(
    person: NDArray[np.float64],
    shown: NDArray[np.bool_],
    sure: NDArray[np.bool_],
    look: _Look,
    dash: float,
) -> tuple[NDArray[np.float64], list[int]]:
    """The ends (n, 2, 2) and the colours (n), as indices, of the lines of the limbs whose joints
    are shown, in their order. A limb with a joint that is not sure has dashes of about `dash`
    pixels.
    """
    kept = [i for i, (a, b) in enumerate(look.limbs) if shown[a] and shown[b]]
    pairs = [look.limbs[i] for i in kept]
    lines = [look.lines[i] for i in kept]
    ends = person[np.reshape(pairs, (-1, 2)).astype(int), :2]
    unsure = [not (sure[a] and sure[b]) for a, b in pairs]
    if not any(unsure):
        return ends, lines
    dashes, owners = _dashes(ends, np.asarray(unsure), dash)
    return dashes, [lines[owner] for owner in owners]


def _dashes(
    ends: NDArray[np.float64], dashed: NDArray[np.bool_], length: float
) -> tuple[NDArray[np.float64], list[int]]:
    """Lines (n, 2, 2), those that are dashed (n,) cut into dashes of about `length` pixels with
    gaps as long, from end to end, 3 to MAX_DASHES of them. Also the line that each is of.
    """
    along = ends[:, 1] - ends[:, 0]
    pairs = np.hypot(along[:, 0], along[:, 1]) / (2 * length)  # of a dash and a gap
    counts = np.where(dashed, np.clip(np.round(pairs), 3, MAX_DASHES), 1).astype(int)
    owners = np.repeat(np.arange(len(ends)), counts)
    steps = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.where(dashed, 0.5, 1) / np.where(dashed, counts - 0.5, 1)  # of a dash in its line
    starts = steps / np.where(dashed, counts - 0.5, 1)[owners]
    shares = np.stack([starts, starts + share[owners]], axis=1)[..., None]
    return ends[owners, :1] + shares * along[owners, None], owners.tolist()


def _stripes(
    canvas: Image, ends: NDArray[np.float64], width: float, colors: Iterable[Color]
) -> None:
    """Lines between ends (n, 2, 2) as rectangles; OpenCV needs four times as long for lines with
    round ends.
    """
    along = ends[:, 1] - ends[:, 0]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    across = along[:, ::-1] * (-0.5, 0.5) * width / length
    first = ends[:, 0]
    last = ends[:, 1]
    corners = np.stack([first + across, last + across, last - across, first - across], axis=1)
    for rectangle, color in zip(_fixed(corners), colors):
        cv2.fillConvexPoly(canvas, rectangle, color, cv2.LINE_AA, SHIFT)


def _near(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points where OpenCV can draw: finite, and not too far away."""
    return np.clip(np.nan_to_num(points), -FARTHEST, FARTHEST)


def _fixed(points: NDArray[np.float64]) -> Points:
    """Points (..., 2) in 1/16 px."""
    return np.round(points * (1 << SHIFT)).astype(np.int32)


def _disc(canvas: Image, center: Sequence[int], radius: float, color: Color) -> None:
    """A disc with a dark rim. center: in 1/16 px. radius: in px."""
    rim = round(_rim(radius) * (1 << SHIFT))
    cv2.circle(canvas, center, rim, DARK, -1, cv2.LINE_AA, SHIFT)
    cv2.circle(canvas, center, round(radius * (1 << SHIFT)), color, -1, cv2.LINE_AA, SHIFT)


def _rim(radius: float) -> float:
    """The radius of a disc with its rim, in px."""
    return radius + max(0.8, radius * 0.35)


def _ring(canvas: Image, center: Sequence[int], radius: float, color: Color) -> None:
    """A disc that is dark inside; see _disc."""
    _disc(canvas, center, radius, color)
    inner = round(0.6 * radius * (1 << SHIFT))
    cv2.circle(canvas, center, inner, DARK, -1, cv2.LINE_AA, SHIFT)


class _Box(NamedTuple):
    """Where a text is, with its outline, in px. corner: its lower left one."""

    corner: tuple[int, int]
    width: int
    height: int

    def covers(self, other: _Box) -> bool:
        """Whether the two have pixels in common."""
        across = other.corner[0] - self.corner[0]
        down = other.corner[1] - self.corner[1]
        return -other.width < across < self.width and -self.height < down < other.height


def _free_place(box: _Box, taken: Sequence[_Box], canvas: Image) -> _Box:
    """The box, moved up or down by as few lines as possible to where it covers no other; where it
    is if there is no such place in the image.
    """
    x, y = box.corner
    lines = [line * sign for line in range(len(taken) + 1) for sign in (-1, 1)]
    places = [box._replace(corner=(x, y + line * box.height)) for line in lines]
    free = (
        place
        for place in places
        if box.height <= place.corner[1] < len(canvas) and not any(map(place.covers, taken))
    )
    return next(free, box)


def _text_box(canvas: Image, text: str, at: tuple[int, int], scale: float) -> _Box:
    """The box of a text whose lower left corner is `at`, moved so that the whole text is between
    the left and right borders, and below the upper one. scale: OpenCV's size of the font.
    """
    stroke = max(1, round(2 * scale))
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 3 * stroke)
    height += 3 * stroke  # with the outline
    x, y = at
    return _Box((max(stroke, min(x, canvas.shape[1] - width)), max(y, height)), width, height)


def _write(canvas: Image, text: str, corner: tuple[int, int], color: Color, scale: float) -> None:
    """Text with a dark outline. corner: that of its `_text_box`."""
    stroke = max(1, round(2 * scale))
    cv2.putText(canvas, text, corner, FONT, scale, DARK, 3 * stroke, cv2.LINE_AA)
    cv2.putText(canvas, text, corner, FONT, scale, color, stroke, cv2.LINE_AA)


# -- maps


def _checked(image: Image) -> Image:
    found = np.asarray(image)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3 or not found.size:
        raise ValueError(f"image: {found.dtype} {found.shape}; it must be (H, W, 3) uint8 RGB")
    return np.ascontiguousarray(found)


def _maps(maps: ArrayLike) -> Maps:
    """Maps (K, h, w) or (h, w) as (K, h, w) float32, NaN as 0."""
    values = np.nan_to_num(np.asarray(maps, np.float32))
    if values.ndim not in (2, 3):
        raise ValueError(f"maps: shape {values.shape}; it must be (K, h, w)")
    return values[None] if values.ndim == 2 else values


def _size(image: NDArray[np.generic]) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _stretch(values: Maps, image: NDArray[np.generic]) -> Maps:
    """Resize a map (h, w) to the image."""
    return np.asarray(cv2.resize(values, _size(image), interpolation=cv2.INTER_LINEAR), np.float32)


def _jet(values: Maps) -> Image:
    """Values (H, W) from 0 to 1 as colours (H, W, 3) from blue to red."""
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1], np.uint8)


def _over(image: Image, color: Image) -> Image:
    return _blend(_checked(image), color, np.float32(0.6))


def _blend(image: Image, color: NDArray[np.integer], share: Maps | np.float32) -> Image:
    """Mix the colour by `share` with a dimmed grey version of the image."""
    grey = image.mean(axis=2, keepdims=True) * 0.7 + 30
    mixed: Image = np.clip(grey * (1 - share) + color * share, 0, 255).astype(np.uint8)
    return mixed
