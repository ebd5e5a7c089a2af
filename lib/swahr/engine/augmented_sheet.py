"""What training sees: augmented images of a configuration, with the targets that are learnt."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np
import torch

from swahr.codec.targets import StageTarget, build_target_encoder
from swahr.config import fit_to_network
from swahr.data.images import Image
from swahr.data.keypoints import KeypointDataset
from swahr.data.loaders import TrainingSet, collate
from swahr.data.transforms import build_transforms
from swahr.models.build import build_model
from swahr.skeleton import Skeleton
from swahr.visualize import draw_heatmap, draw_people, fit, make_grid

EXAMPLES = 8
COLUMNS = 4  # of images, two to an example
CELL = 320  # px of each image


def augmented_sheet(cfg: Any, dataset: KeypointDataset, count: int = EXAMPLES) -> Image:
    """Pairs of images, spread over a data set as in epoch 1: the network's input with the joints
    that are learnt and masked regions darkened, and the same below the targets of the finest stage,
    the highest of all keypoints.

    dataset: made for training by build_dataset. Raises what building the network and the transforms
    raises, ImageError if no image can be read.
    """
    with torch.device("meta"):  # only its sizes are needed
        network = build_model(cfg)
    cfg = fit_to_network(cfg, network.strides, network.size_divisor)
    skeleton = dataset.trained_skeleton
    samples = TrainingSet(
        dataset, build_transforms(cfg, skeleton), seed=cfg.TRAIN.SEED, skip_bad=True
    )
    indices = [dataset.image_ids.index(image_id) for image_id in dataset.examples(count)]
    batch = collate([samples[0, index] for index in indices])
    target = build_target_encoder(cfg)(batch.joints, batch.masks)[-1]
    cells: list[Image] = []
    for number, image in enumerate(batch.images.numpy()):
        cells += _pair(image, target.map(itemgetter(number)), skeleton)
    return make_grid(cells, COLUMNS)


def _pair(image: Image, target: StageTarget, skeleton: Skeleton) -> list[Image]:
    """An image (S, S, 3) with its joints, and below its heatmaps."""
    assert target.joints is not None, "the encoder keeps the joints"
    small = fit(image, CELL)
    size = target.mask.shape[-1]
    columns = np.arange(CELL) * size // CELL
    mask = target.mask.numpy()[columns][:, columns, None]
    joints = target.joints[..., :3].numpy().copy()
    joints[..., :2] *= CELL / size
    joints[..., 2] = target.present.numpy()
    masked = np.where(mask > 0, small, small // 3)
    return [draw_people(masked, joints, skeleton), draw_heatmap(masked, target.heatmaps.numpy())]
