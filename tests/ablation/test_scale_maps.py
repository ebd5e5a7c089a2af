"""Scale maps are read at the joints of people of known heights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from swahr.ablation.scale_maps import (
    ScaleReadings,
    load_scales,
    read_scales,
    save_scales,
    width_factor,
)
from swahr.data.keypoints import KeypointDataset
from swahr.models.network import PoseNetwork, StageOutput
from swahr.skeleton import COCO


class Coordinates(PoseNetwork):
    """Scale maps that say where they are: x at the first resolution, 1000 k + y at the second."""

    strides = (4, 2)  # type: ignore[assignment]

    def __init__(self, joints: int = 17, stages_with_scales: int = 2) -> None:
        torch.nn.Module.__init__(self)
        self.always_eval = []
        self.joints = joints
        self.stages_with_scales = stages_with_scales

    def forward(self, images: torch.Tensor) -> list[StageOutput]:
        outputs = []
        for stage, stride in enumerate(self.strides):
            height = images.shape[2] // stride
            width = images.shape[3] // stride
            k, y, x = torch.meshgrid(
                torch.arange(float(self.joints)),
                torch.arange(float(height)),
                torch.arange(float(width)),
                indexing="ij",
            )
            maps = (1000 * k + y if stage else x)[None]
            scales = maps if stage < self.stages_with_scales else None
            outputs.append(StageOutput(scales, maps, None))
        return outputs


@pytest.fixture(scope="module")
def readings_and_data(toy_images: Path) -> tuple[ScaleReadings, KeypointDataset]:
    annotations = toy_images / "annotations/person_keypoints_val2017.json"
    dataset = KeypointDataset(annotations, toy_images / "images/val2017", COCO)
    readings = read_scales(Coordinates(), dataset, 64, torch.device("cpu"))
    assert readings is not None
    return readings, dataset


def test_each_joint_is_read_in_its_own_map_at_its_own_place(
    readings_and_data: tuple[ScaleReadings, KeypointDataset],
) -> None:
    readings, dataset = readings_and_data
    expected = []
    for image_id in dataset.image_ids:
        info = dataset.image_info(image_id)
        short = min(info.width, info.height)
        people = dataset.arrays.rows(image_id, dataset.arrays.is_person)
        for row in people:
            for k, (x, y, flag) in enumerate(dataset.arrays.keypoints[row]):
                if flag > 0:
                    expected.append((dataset.arrays.boxes[row, 3], k, x / short, y / short))
    assert len(readings.heights) == len(expected) > 10
    for height, (k, y), wanted in zip(
        readings.heights, [divmod(value, 1000) for value in readings.scales[1]], expected
    ):
        assert (height, k) == wanted[:2]
        # The long side is padded to a multiple of 64, so that y may be shifted by half of that.
        assert abs(y / 32 - wanted[3]) < 0.5
    assert np.ptp(readings.scales[0]) > 2


def test_a_centre_joint_is_not_read(
    readings_and_data: tuple[ScaleReadings, KeypointDataset],
) -> None:
    readings, dataset = readings_and_data
    with_center = read_scales(Coordinates(joints=18), dataset, 64, torch.device("cpu"))
    assert with_center is not None
    np.testing.assert_array_equal(with_center.scales, readings.scales)


@pytest.mark.parametrize("stages", [0, 1])
def test_a_network_without_all_scale_maps_has_no_readings(
    readings_and_data: tuple[ScaleReadings, KeypointDataset], stages: int
) -> None:
    model = Coordinates(stages_with_scales=stages)
    assert read_scales(model, readings_and_data[1], 64, torch.device("cpu")) is None


def test_readings_are_kept_for_the_weights_that_they_are_of(tmp_path: Path) -> None:
    readings = ScaleReadings(np.array([20.0]), np.array([[0.1], [0.2]]))
    path = tmp_path / "scales.npz"
    assert load_scales(path, "abc") is None
    save_scales(path, readings, "abc")
    again = load_scales(path, "abc")
    assert again is not None and (again.scales == readings.scales).all()
    assert load_scales(path, "other") is None
    whole = path.read_bytes()
    for broken in (b"broken", b"", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        assert load_scales(path, "abc") is None


def test_positive_scales_narrow_and_negative_ones_widen() -> None:
    assert width_factor(0) == 1
    assert width_factor(3) == 0.5
    assert width_factor(-0.75) == 2
    assert width_factor(-1) == float("inf")
