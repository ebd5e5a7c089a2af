"""What the network saw in an image, drawn over it: heatmaps and tags."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.codec.maps import Maps
from swahr.data.images import Image
from swahr.geometry import input_matrix
from swahr.inference.predictor import Predictor
from swahr.visualize import draw_heatmap, draw_tags

HEATMAPS = "heatmaps"
TAGS = "tags"

Map = NDArray[np.float32]


class MapOverlays:
    """Draws the maps of a predictor over images."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, image: Image, shown: Image) -> dict[str, Image]:
        """Drawings by name: the highest heatmap at each pixel, and the tag of the keypoint that has
        it, where it is high.

        image: (H, W, 3) uint8 RGB. shown: the same at the size of the drawings. Decoders without
        tags have no drawing of them. Raises PredictionError for an image that cannot be used.
        """
        [(_, batch)] = self.predictor.prepare([image])
        maps = self.predictor.whole_maps(batch)
        smallest = batch.geometries[0].scales[-1]
        height, width = maps.heatmaps.shape[2:]
        to_map = input_matrix(smallest.center, smallest.box_scale, (width, height))
        to_map[:, :2] *= np.divide(image.shape[1::-1], shown.shape[1::-1])
        heat, tags = _strongest(maps)
        size = (shown.shape[1], shown.shape[0])

        def over(values: Map, way: int) -> Map:
            moved = cv2.warpAffine(values, to_map, size, flags=way | cv2.WARP_INVERSE_MAP)
            return np.asarray(moved, np.float32)

        heat_over = over(heat, cv2.INTER_LINEAR)
        drawings = {HEATMAPS: draw_heatmap(shown, heat_over)}
        if tags is not None:
            drawings[TAGS] = draw_tags(shown, over(tags, cv2.INTER_NEAREST), heat_over)
        return drawings


def _strongest(maps: Maps) -> tuple[Map, Map | None]:
    """The highest heatmap (h, w) of the first image, and the tag (h, w) of its keypoint in the
    first pass.
    """
    heat, keypoint = maps.heatmaps[0].float().max(0, keepdim=True)
    if maps.tags is None:
        return heat[0].cpu().numpy(), None
    tags = maps.tags[0, ..., 0].float()
    of_keypoint = tags.gather(0, keypoint) if len(tags) > 1 else tags
    return heat[0].cpu().numpy(), of_keypoint[0].cpu().numpy()
