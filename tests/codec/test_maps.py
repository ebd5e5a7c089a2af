"""How mirrored maps of one's own come back, by hand."""

from __future__ import annotations

import pytest
import torch

from swahr.codec.maps import MapRule

FLIP = [0, 2, 1]  # three joints, the last two left and right


def channels(*values: float) -> torch.Tensor:
    """Maps (1, C, 1, 2) whose left pixel is the value of each channel, and whose right one is 0."""
    maps = torch.zeros(1, len(values), 1, 2)
    maps[0, :, 0, 0] = torch.tensor(values)
    return maps


@pytest.mark.parametrize(
    ("rule", "maps", "mirrored"),
    [
        (MapRule(), [1, 2], [1, 2]),
        (MapRule(signs=(-1, 1)), [1, 2], [-1, 2]),
        (MapRule(signs=(-1, 1)), [1, 2, 3, 4], [-1, 2, -3, 4]),
        (MapRule(swap_joints=True), [1, 2, 3], [1, 3, 2]),
        (MapRule(signs=(-1, 1), swap_joints=True), [1, 2, 3, 4, 5, 6], [-1, 2, -5, 6, -3, 4]),
    ],
)
def test_mirror(rule: MapRule, maps: list[float], mirrored: list[float]) -> None:
    got = rule.mirror(channels(*maps), FLIP)
    assert torch.equal(got, channels(*mirrored).flip(3))
    assert torch.equal(rule.mirror(got, FLIP), channels(*maps))


def test_channels_must_fit() -> None:
    with pytest.raises(ValueError, match="^maps have 3 channels, which 2 signs do not divide$"):
        MapRule(signs=(-1, 1)).mirror(channels(1, 2, 3), FLIP)
    with pytest.raises(
        ValueError,
        match="^maps have 3 channels; with swap_joints they need 2 for each of 3 joints$",
    ):
        MapRule(signs=(-1, 1), swap_joints=True).mirror(channels(1, 2, 3), FLIP)


def test_the_last_joint_is_dropped_with_all_its_channels() -> None:
    maps = channels(1, 2, 3, 4)
    assert torch.equal(MapRule(swap_joints=True).drop_last_joint(maps), maps[:, :3])
    assert torch.equal(MapRule((-1, 1), swap_joints=True).drop_last_joint(maps), maps[:, :2])
    assert MapRule((-1, 1)).drop_last_joint(maps) is maps
