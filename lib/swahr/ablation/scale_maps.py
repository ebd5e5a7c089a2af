"""The scale maps that a network has learnt, read where the joints are (SWAHR, figure 5).

A scale map s widens or narrows a joint's Gaussian: the target is H^(1 + s) to second order, so the
standard deviation is 1 / sqrt(1 + s) times the usual one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch

from swahr.data.images import normalize
from swahr.data.keypoints import KeypointDataset
from swahr.evaluation.matching import Floats
from swahr.files import replacing
from swahr.geometry import InputGeometry, input_geometry, input_matrix, transform_points
from swahr.inference.predictor import warp
from swahr.models.network import PoseNetwork


class ScaleReadings(NamedTuple):
    """Scale maps at J labelled joints.

    heights (J,): of the person's box, in pixels of the image. scales (stages, J): the map of each
    resolution, low to high.
    """

    heights: Floats
    scales: Floats


def width_factor(scale: float) -> float:
    """The width of a Gaussian relative to the usual one, for a value of the scale map; infinite
    where the target no longer falls.
    """
    return float((1 + scale) ** -0.5) if scale > -1 else float("inf")


@torch.inference_mode()
def read_scales(
    model: PoseNetwork, dataset: KeypointDataset, input_size: int, device: torch.device
) -> ScaleReadings | None:
    """The scale maps at the labelled joints of every image, at test scale 1; None where the network
    does not give them at every resolution.

    model: on the device; put into evaluation mode. Raises ImageError for an image that cannot be
    read.
    """
    model.eval()
    heights = [np.empty(0)]
    scales = [np.empty((len(model.strides), 0))]
    for image_id in dataset.image_ids:
        people = dataset.arrays.rows(image_id, dataset.arrays.is_person)
        joints = dataset.arrays.keypoints[people].astype(np.float64)
        if not len(joints):
            continue
        image = dataset.read(image_id)
        place = input_geometry(image.shape[1], image.shape[0], input_size, 1.0, 1.0)
        tall = np.repeat(dataset.arrays.boxes[people, 3:].astype(np.float64), joints.shape[1], 1)
        warped = torch.from_numpy(warp(image, place))[None]
        outputs = model(normalize(warped.to(device)))
        maps = [output.scales for output in outputs if output.scales is not None]
        if len(maps) < len(outputs):
            return None
        values = _at_joints(maps, joints, place)
        used = (joints[..., 2] > 0) & np.isfinite(values).all(axis=0)
        heights.append(tall[used])
        scales.append(values[:, used])
    return ScaleReadings(np.concatenate(heights), np.concatenate(scales, axis=1))


def _at_joints(scales: Sequence[torch.Tensor], joints: Floats, place: InputGeometry) -> Floats:
    """(stages, N, K) values of the scale maps (1, K, h, w) of each stage at joints (N, K, 3) in
    image pixels; NaN outside the map.
    """
    stages = []
    for scale in scales:
        keypoints = joints.shape[1]  # a centre joint after them is not read
        maps = scale[0, :keypoints].float().cpu().numpy()
        height, width = maps.shape[1:]
        matrix = input_matrix(place.center, place.box_scale, (width, height))
        x, y = np.moveaxis(transform_points(joints[..., :2], matrix).astype(int), -1, 0)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rows = y.clip(0, height - 1)
        columns = x.clip(0, width - 1)
        values = maps[np.arange(keypoints), rows, columns]
        stages.append(np.where(inside, values, np.nan))
    return np.stack(stages)


def save_scales(path: Path, readings: ScaleReadings, digest: str) -> None:
    """Write readings with the digest of the weights that they are of."""
    with replacing(path, durable=False) as file:
        np.savez(file, **readings._asdict(), digest=np.array(digest))


def load_scales(path: Path, digest: str) -> ScaleReadings | None:
    """The readings of a file; None where it is not there, damaged, or of other weights."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if str(content["digest"]) != digest:
                return None
            return ScaleReadings(content["heights"], content["scales"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
