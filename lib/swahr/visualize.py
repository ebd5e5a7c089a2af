"""Images of people and of what the network sees: skeletons, heatmaps, scale and tag maps, panels
for training.

Images are (H, W, 3) uint8 RGB and never changed in place; maps are arrays or CPU tensors of any
size, stretched over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from swahr.files import write_bytes
from swahr.skeleton import Skeleton

Image = NDArray[np.uint8]
Maps = NDArray[np.float32]
Color = tuple[int, int, int]

SHIFT = 4  # fractional bits of a drawn coordinate
FONT = cv2.FONT_HERSHEY_SIMPLEX
DARK = (20, 20, 20)  # outlines
CAPTIONS = ("input", "target", "heatmap", "scale", "tag")
SCALE_LIMIT = 0.5  # value of the scale map that is drawn in full colour


def draw_people(
    image: Image,
    keypoints: ArrayLike,
    skeleton: Skeleton,
    scores: ArrayLike | None = None,
    threshold: float = 0.0,
    boxes: bool = False,
) -> Image:
    """A copy of the image with people drawn on it, each in its own hue, left limbs lighter than
    right ones.

    keypoints: (P, K, 3) x, y in image pixels and a score or visibility flag; joints at or below
    `threshold` are left out, and limbs with them. scores (P,) are written above the people. Widths
    follow the person's size. ValueError if there are fewer than the skeleton's K; more (a centre)
    are not drawn.
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
    for i, person in enumerate(people):
        shown = (person[:, 2] > threshold) & np.isfinite(person).all(axis=1)
        if shown.any():
            label = None if scores is None else f"{np.asarray(scores).ravel()[i]:.2f}"
            _draw_person(canvas, person, shown, skeleton, i, label, boxes)
    return canvas


def draw_heatmaps(
    image: Image, heatmaps: ArrayLike, columns: int | None = None, limit: float = 1.0
) -> Image:
    """Every heatmap of (K, h, w) as blue to red over the image, in a grid; `limit` is red. The
    image if K = 0.
    """
    maps = _maps(heatmaps)
    cells = [_over(image, _jet(_stretch(values, image) / limit)) for values in maps]
    return (
        make_grid(cells, columns or int(np.ceil(np.sqrt(len(cells)))))
        if cells
        else _checked(image).copy()
    )


def draw_heatmap(image: Image, heatmaps: ArrayLike, limit: float = 1.0) -> Image:
    """The highest of all heatmaps (K, h, w) at each place, as blue to red over the image."""
    maps = _maps(heatmaps)
    return (
        _over(image, _jet(_stretch(maps.max(axis=0), image) / limit))
        if len(maps)
        else _checked(image).copy()
    )


def draw_scale_map(image: Image, scales: ArrayLike, limit: float = SCALE_LIMIT) -> Image:
    """Scale maps (K, h, w) over the image, at each place the one farthest from 0: red above 0, blue
    below.
    """
    maps = _maps(scales)
    if not len(maps):
        return _checked(image).copy()
    farthest = np.take_along_axis(maps, np.abs(maps).argmax(axis=0)[None], axis=0)[0]
    value = np.clip(_stretch(farthest, image) / limit, -1, 1)[..., None]
    color = np.where(value > 0, np.array([235, 40, 30]), np.array([30, 70, 240]))
    return _blend(_checked(image), color, np.abs(value))


def draw_tags(image: Image, tags: ArrayLike, heatmaps: ArrayLike | None = None) -> Image:
    """Tag maps (C, h, w) as colours from their lowest value (blue) to their highest (red).

    With heatmaps (K, h, w), the tag of the highest heatmap's channel, shown where that heatmap is
    high; without, the first channel everywhere.
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
            else np.stack([_stretch(each, maps[0]) for each in heat])
        )
        if len(maps) == len(heat):
            values = np.take_along_axis(maps, heat.argmax(axis=0)[None], axis=0)[0]
        strength = np.clip(heat.max(axis=0) * 1.5, 0, 1)
    seen = values[np.broadcast_to(strength, values.shape) > 0.15]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
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
    """Samples in rows: input, target, heatmap, scale map and tag map side by side, under their
    names.

    image: (B, H, W, 3) uint8; target, heatmap, scale: (B, K, h, w); tag: (B, C, h, w); or one
    sample, each without B. Columns without maps are left out. Every image gets `cell` pixels on its
    longer side.
    """
    given = zip(CAPTIONS, (image, target, heatmap, scale, tag), strict=True)
    parts = {name: np.asarray(part) for name, part in given if part is not None}
    if parts["input"].ndim == 3:
        parts = {name: part[None] for name, part in parts.items()}
    cells: list[Image] = []
    for i, pixels in enumerate(parts["input"]):
        small = _fit(_checked(pixels), cell)
        cells += [
            small,
            draw_heatmap(small, parts["target"][i]),
            draw_heatmap(small, parts["heatmap"][i]),
        ]
        if "scale" in parts:
            cells.append(draw_scale_map(small, parts["scale"][i]))
        if "tag" in parts:
            cells.append(draw_tags(small, parts["tag"][i], parts["heatmap"][i]))
    captions = [_caption(name, cells[0].shape[1]) for name in parts] if cells else []
    return make_grid(captions + cells, len(parts))


def make_grid(images: Sequence[Image], columns: int, pad: int = 2) -> Image:
    """Images in rows of `columns` on white, `pad` pixels apart; rows and columns fit their largest
    image.
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


def save_image(path: str | Path, image: Image) -> None:
    """Write an RGB image in the format of its name's ending, beside its place and renamed;
    ValueError if unknown.
    """
    try:
        data = encode(image, Path(path).suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    write_bytes(path, data, durable=False)


def encode(image: Image, ending: str) -> bytes:
    """An RGB image as a file of the format that has this ending, ".png" say; ValueError if
    unknown.
    """
    try:
        done, data = cv2.imencode(ending, _checked(image)[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"images are written as .png or .jpg, not as {ending or 'a bare name'}")
    return data.tobytes()


# -- people
# ------------------------------------------------------------------------------------------------------------


def person_colors(index: int) -> tuple[Color, Color, Color]:
    """RGB for the middle, the left and the right limbs of person `index`; hues go round by the
    golden section.
    """
    hue = int(index * 0.618034 * 180 + 18) % 180
    hsv = np.array(
        [[(hue, 190, 255), ((hue + 6) % 180, 120, 255), ((hue - 6) % 180, 230, 225)]], np.uint8
    )
    middle, left, right = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].tolist()
    return tuple(middle), tuple(left), tuple(right)


def _draw_person(
    canvas: Image,
    person: NDArray[np.float64],
    shown: NDArray[np.bool_],
    skeleton: Skeleton,
    index: int,
    label: str | None,
    box: bool,
) -> None:
    middle, left, right = person_colors(index)
    by_side = {"left": left, "right": right}
    sides = [by_side.get(name.partition("_")[0], middle) for name in skeleton.keypoints]
    low = person[shown, :2].min(axis=0)
    high = person[shown, :2].max(axis=0)
    size = float((high - low).max())
    width = max(1, round(size * 0.012))
    radius = max(1.0, size * 0.014)
    rim = radius + max(0.8, radius * 0.35)
    fixed = np.round(np.nan_to_num(person[:, :2]) * (1 << SHIFT))
    points = np.clip(fixed, -(1 << 24), 1 << 24).astype(int).tolist()
    limbs = [
        (a, b, sides[a] if sides[a] == sides[b] else middle)
        for a, b in skeleton.limbs
        if shown[a] and shown[b]
    ]
    for a, b, _ in limbs:
        cv2.line(canvas, points[a], points[b], DARK, width + max(1, width // 2), cv2.LINE_AA, SHIFT)
    for a, b, color in limbs:
        cv2.line(canvas, points[a], points[b], color, width, cv2.LINE_AA, SHIFT)
    for k in np.flatnonzero(shown[: skeleton.num_keypoints]):
        cv2.circle(canvas, points[k], round(rim * (1 << SHIFT)), DARK, -1, cv2.LINE_AA, SHIFT)
        cv2.circle(
            canvas, points[k], round(radius * (1 << SHIFT)), sides[k], -1, cv2.LINE_AA, SHIFT
        )
    corner, far = (
        np.clip(np.round(values), -(1 << 15), 1 << 15).astype(int).tolist()
        for values in (low, high)
    )
    if box:
        cv2.rectangle(canvas, corner, far, middle, width)
    if label:
        _write(canvas, label, (corner[0], max(10, corner[1] - 4)), middle)


def _write(canvas: Image, text: str, at: tuple[int, int], color: Color) -> None:
    cv2.putText(canvas, text, at, FONT, 0.4, DARK, 3, cv2.LINE_AA)
    cv2.putText(canvas, text, at, FONT, 0.4, color, 1, cv2.LINE_AA)


# -- maps
# --------------------------------------------------------------------------------------------------------------


def _checked(image: Image) -> Image:
    found = np.asarray(image)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3 or not found.size:
        raise ValueError(f"image: {found.dtype} {found.shape}; it must be (H, W, 3) uint8 RGB")
    return np.ascontiguousarray(found)


def _maps(maps: ArrayLike) -> Maps:
    """(K, h, w) float32 of (K, h, w) or (h, w), without NaN."""
    values = np.nan_to_num(np.asarray(maps, np.float32))
    if values.ndim not in (2, 3):
        raise ValueError(f"maps: shape {values.shape}; it must be (K, h, w)")
    return values[None] if values.ndim == 2 else values


def _size(image: NDArray[np.generic]) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _stretch(values: Maps, image: NDArray[np.generic]) -> Maps:
    """A map (h, w) as large as the image."""
    return np.asarray(cv2.resize(values, _size(image), interpolation=cv2.INTER_LINEAR), np.float32)


def _jet(values: Maps) -> Image:
    """0 to 1 as blue to red, (H, W, 3)."""
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1], np.uint8)


def _over(image: Image, color: Image) -> Image:
    return _blend(_checked(image), color, np.float32(0.6))


def _blend(image: Image, color: NDArray[np.integer], share: Maps | np.float32) -> Image:
    """`share` of the colour, the rest a dimmed grey of the image, on which colours stand out."""
    grey = image.mean(axis=2, keepdims=True) * 0.7 + 30
    mixed: Image = np.clip(grey * (1 - share) + color * share, 0, 255).astype(np.uint8)
    return mixed


def _fit(image: Image, longest: int) -> Image:
    """The image with `longest` pixels on its longer side."""
    zoom = longest / max(image.shape[:2])
    width, height = (max(1, round(side * zoom)) for side in _size(image))
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)


def _caption(text: str, width: int) -> Image:
    strip = np.full((18, max(1, width), 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 13), FONT, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
    return strip
