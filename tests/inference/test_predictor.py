"""The predictor: people are found where they are, in batches, at several scales, and with further
maps of a head.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from swahr.acceleration.fuse import supports_dtype
from swahr.codec.decode import AssociativeDecoder, People
from swahr.codec.fast import FastDecoder
from swahr.codec.maps import MapRule, Maps
from swahr.config import load_config
from swahr.inference.predictor import (
    PredictionError,
    Predictor,
    ScaleError,
    build_predictor,
    check_scales,
)
from swahr.models.build import build_model
from swahr.models.network import PoseNetwork, StageOutput
from swahr.skeleton import COCO
from tests.inference.toy_predictor import GREEN, RED, colours, image, predictor

ROOT = Path(__file__).resolve().parents[2]
WIDE = image(128, 64, [(20, 20), (100, 30)])
TALL = image(60, 100, [(40, 50)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip_index": None},
        {"project": False},
        {"scales": (0.5, 1, 2)},
        {"scales": (2, 1), "project": False},
        {"scales": (0.5,)},
    ],
)
def test_people_are_found_where_they_are_in_images_of_any_shape(options: dict[str, object]) -> None:
    wide, tall = predictor(**options)([WIDE, TALL])
    for found, people in ((wide, [(20, 20), (100, 30)]), (tall, [(40, 50)])):
        assert found.keypoints.shape == (len(people), 2, 3) and found.scores.shape == (len(people),)
        reds = np.array(sorted(found.keypoints.tolist()))
        np.testing.assert_allclose(reds[:, RED, :2], people, atol=2)
        np.testing.assert_allclose(reds[:, GREEN, :2], np.add(people, (0, 20)), atol=2)


def test_batches_of_any_size_give_the_same() -> None:
    images = [
        WIDE,
        TALL,
        WIDE[:, ::-1].copy(),
        image(128, 64, []),
        TALL,
        image(512, 256, [(99, 99)], 15),
    ]
    alone = [predictor()([image])[0] for image in images]
    for batch_size in (1, 2, 8):
        together = predictor(batch_size=batch_size)(images)
        for got, want in zip(together, alone):
            np.testing.assert_array_equal(got.keypoints, want.keypoints)
            np.testing.assert_array_equal(got.scores, want.scores)


def test_batches_hold_images_of_one_input_size_and_no_more_than_allowed() -> None:
    batches = list(predictor(batch_size=2).prepare([WIDE, TALL, WIDE, WIDE]))
    assert [indices for indices, _ in batches] == [[0, 2], [3], [1]]
    assert [tuple(batch.images[0].shape) for _, batch in batches] == [
        (2, 64, 128, 3),
        (1, 64, 128, 3),
        (1, 128, 64, 3),
    ]


def test_an_image_without_people() -> None:
    [found] = predictor()([np.zeros((64, 64, 3), np.uint8)])
    assert found.keypoints.shape == (0, 2, 3) and found.scores.shape == (0,)


def test_thirty_one_people() -> None:
    crowd = image(320, 320, [(20 + 40 * (i % 8), 20 + 70 * (i // 8)) for i in range(31)], shade=8)
    assert len(predictor(input_size=320)([crowd])[0].scores) == 31


def test_an_image_of_one_pixel() -> None:
    assert len(predictor()([np.zeros((1, 1, 3), np.uint8)])) == 1


def test_no_images() -> None:
    assert predictor()([]) == []


def test_the_network_sees_scales_largest_first_and_both_sides_in_one_batch() -> None:
    inputs = []

    def network(images: Tensor) -> list[StageOutput]:
        inputs.append(images)
        return colours(images)

    people = predictor(scales=(0.5, 2, 1), batch_size=2)
    people.model = network
    people([WIDE, WIDE[::-1].copy()])
    assert [tuple(images.shape) for images in inputs] == [
        (4, 3, 256, 512),
        (4, 3, 128, 256),
        (4, 3, 64, 128),
    ]
    for images in inputs:
        assert torch.equal(images[2:], images[:2].flip(3))
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3)),
        "a",
    ],
)
def test_other_things_than_images_are_refused_in_one_line(image: object) -> None:
    with pytest.raises(
        PredictionError, match=r"must be a uint8 array \(height, width, 3\) in RGB, not "
    ):
        predictor()([image])  # type: ignore[list-item]


def test_an_empty_image_is_said_to_be_empty() -> None:
    with pytest.raises(PredictionError, match=r"this array is empty, of shape \(0, 8, 3\)$"):
        predictor()([np.zeros((0, 8, 3), np.uint8)])


def test_a_very_thin_image_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(
        PredictionError, match="2 x 30000 pixels is too long and thin: .* 64 x 960000"
    ):
        predictor()([np.zeros((30000, 2, 3), np.uint8)])


def test_geometries_are_worked_out_once_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the caller has are used as they are, with the same results."""
    toy = predictor(scales=(0.5, 1, 2), batch_size=2)
    images = [WIDE, TALL, WIDE]
    want = toy(images)
    geometries = [toy.geometries_of(image) for image in images]
    assert geometries[0] == toy.geometries(128, 64)
    assert [placement.size for placement in geometries[1].scales] == [
        (256, 512),
        (128, 256),
        (64, 128),
    ]
    assert geometries[1].input_size == (256, 512) and geometries[1].full_size == (128, 256)
    monkeypatch.setattr("swahr.geometry.input_geometry", None)
    for indices, batch in toy.prepare(images, geometries):
        for index, got in zip(indices, toy.decode(batch, toy.maps(batch))):
            np.testing.assert_array_equal(got.keypoints, want[index].keypoints)


def with_extra(images: Tensor) -> list[StageOutput]:
    """The toy network with further maps: the horizontal slope of the heatmap, and the width of the
    input.
    """
    outputs = colours(images)
    heatmaps = outputs[-1].heatmaps
    slope = torch.zeros_like(heatmaps[:, :1])
    slope[..., 1:-1] = heatmaps[:, :1, :, 2:] - heatmaps[:, :1, :, :-2]
    extra = {"slopes": slope, "widths": torch.full_like(slope, images.shape[3])}
    outputs[-1] = outputs[-1]._replace(extra={**extra, "unused": slope})
    return outputs


@pytest.mark.parametrize("project", [True, False])
def test_maps_of_a_head_from_outside_reach_its_decoder(project: bool) -> None:
    decoded: list[Maps] = []

    def decoder(maps: Maps) -> list[People]:
        decoded.append(maps)
        point = np.array([[[1, 2, 0.5], [3, 4, 0.5]]], np.float32)
        return [People(point, np.ones(1, np.float32))] * len(maps.heatmaps)

    for flip_index in ((0, 1), None):
        toy = predictor(
            scales=(1, 2),
            project=project,
            flip_index=flip_index,
            map_rules={"slopes": MapRule(signs=(-1,)), "widths": MapRule(average=False)},
        )
        toy.model = with_extra
        toy.decoder = decoder
        [found] = toy([WIDE])
        assert found.keypoints.shape == (1, 2, 3)
    flipped, plain = decoded
    assert set(flipped.extra) == {"slopes", "widths"}
    size = flipped.heatmaps.shape[2:]
    assert all(values.shape[2:] == size for values in flipped.extra.values())
    # The network treats left and right alike, so that flips change nothing if the sign is right.
    assert flipped.extra["slopes"].abs().max() > 0.01
    torch.testing.assert_close(flipped.extra["slopes"], plain.extra["slopes"])
    # These are taken from the image as it is at scale 1 only.
    assert (flipped.extra["widths"] == 128).all()


@pytest.mark.parametrize(
    ("scales", "size_divisor"),
    [([1], 32), ([0.5, 1, 2], 32), ([0.5, 0.75, 1], 32), ([0.75, 1], 1), ([1, 1.25], 16)],
)
def test_scales_that_fit(scales: list[float], size_divisor: int) -> None:
    check_scales(scales, size_divisor)


@pytest.mark.parametrize("scales", [[0.75, 1], [1, 1.25], [0.3, 1]])
def test_scales_that_do_not_fit(scales: list[float]) -> None:
    with pytest.raises(
        ScaleError,
        match=r"most images cannot be tested at the scales .*multiples of 32.*"
        "a multiple of 0.5 times the smallest one, for example 0.5, 0.75, 1$",
    ):
        predictor(scales=scales, size_divisor=32)


def test_a_network_that_fits_no_test_size() -> None:
    with pytest.raises(ScaleError, match="multiples of 64; the network needs multiples of 128"):
        check_scales([1], 128)


def test_scales_are_refused_by_their_key_when_the_predictor_is_built() -> None:
    model = torch.nn.Identity()
    model.size_divisor = 32  # type: ignore[assignment]
    with pytest.raises(ScaleError, match=r"^TEST.SCALE_FACTOR: most images .* \[0.75, 1.0\]: "):
        build_predictor(config("TEST.SCALE_FACTOR", "[0.75, 1.0]"), model, COCO)


def test_some_resolution_must_give_heatmaps() -> None:
    with pytest.raises(ValueError, match="^use_heatmaps must be true for at least one resolution$"):
        predictor(use_heatmaps=[False, False])


def config(*opts: str) -> CfgNode:
    return load_config(
        ROOT / "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml",
        ["TEST.FUSE", "False", *opts],
    )


def built(*opts: str) -> Predictor:
    return build_predictor(config(*opts), torch.nn.Identity(), COCO)


@pytest.mark.parametrize("flip", [False, True])
def test_sides_in_no_flip_pair_are_named_when_images_are_mirrored(
    flip: bool, caplog: pytest.LogCaptureFixture
) -> None:
    unpaired = replace(COCO, flip_pairs=())
    build_predictor(config("TEST.FLIP_TEST", flip), torch.nn.Identity(), unpaired)
    assert ("in no pair of flip_pairs" in caplog.text) is flip


def test_settings_reach_the_predictor() -> None:
    made = built("TEST.SCALE_FACTOR", "[0.5, 1.0, 2.0]", "LOSS.WITH_HEATMAPS_LOSS", "[False, True]")
    assert made.scales == [2, 1, 0.5] and made.flip_index == COCO.flip_index and made.project
    assert made.use_heatmaps == [False, True] and made.use_tags == [True, False]
    assert built("TEST.FLIP_TEST", "False").flip_index is None
    assert built("AMP.ENABLED", "True").amp_dtype is torch.bfloat16 and made.amp_dtype is None


def test_mixed_precision_is_in_the_weights_if_the_device_supports_it() -> None:
    def maps(*opts: str) -> torch.Tensor:
        cfg = load_config(
            ROOT / "experiments/synthetic/tiny_192_cpu.yaml", ["MODEL.INIT_WEIGHTS", "False", *opts]
        )
        torch.manual_seed(0)
        made = build_predictor(cfg, build_model(cfg), COCO)
        assert (made.input_dtype, made.amp_dtype) in (
            (torch.float32, None),
            (torch.bfloat16, None),
            (torch.float32, torch.bfloat16),
        )
        assert (made.input_dtype == torch.bfloat16) == (
            opts[1] == "True" and supports_dtype(torch.bfloat16, made.device)
        )
        [(_, batch)] = made.prepare([TALL])
        return made.maps(batch).heatmaps

    exact = maps("AMP.ENABLED", "False")
    rounded = maps("AMP.ENABLED", "True", "AMP.DTYPE", "bf16")
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05 * float(exact.abs().max()))


TINY = ROOT / "experiments/synthetic/tiny_192_cpu.yaml"


def with_new_weights(seed: int) -> PoseNetwork:
    torch.manual_seed(seed)
    return build_model(load_config(TINY))


@pytest.mark.parametrize("mixed", ["False", "True"])
def test_a_predictor_takes_the_weights_of_the_day(mixed: str) -> None:
    """Those of its network, as a new predictor would, to the bit."""
    cfg = load_config(TINY, ["AMP.ENABLED", mixed])
    kept = build_predictor(cfg, with_new_weights(0), COCO)
    model = with_new_weights(1)
    assert kept.refresh(model)
    [(_, batch)] = kept.prepare([TALL])
    want = build_predictor(cfg, model, COCO).maps(batch)
    got = kept.maps(batch)
    assert torch.equal(got.heatmaps, want.heatmaps)
    assert torch.equal(got.tags, want.tags)  # type: ignore[arg-type]


def test_a_predictor_without_a_fused_copy_serves_its_own_network_only() -> None:
    cfg = load_config(TINY, ["TEST.FUSE", "False"])
    model = with_new_weights(0)
    kept = build_predictor(cfg, model, COCO)
    assert kept.refresh(model) and not kept.refresh(with_new_weights(0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip_index": None},
        {"project": False},
        {"scales": (0.5, 1, 2)},
        {"scales": (2, 1), "project": False},
        {"scales": (1, 1.5), "project": False},
        {"use_heatmaps": [False, True], "use_tags": [True, True]},
    ],
)
def test_fast_decoding_finds_the_same_people(options: dict[str, object]) -> None:
    exact = predictor(**options)
    fast = predictor(**options, fast=True)
    fast.decoder = FastDecoder(exact.decoder)  # type: ignore[arg-type]
    for got, want in zip(fast([WIDE, TALL]), exact([WIDE, TALL]), strict=True):
        assert got.keypoints.shape == want.keypoints.shape and got.tags is not None
        # Equal peaks may come in another order, and so their people.
        own = np.argsort(got.keypoints[:, 0, 0])
        order = np.argsort(want.keypoints[:, 0, 0])
        np.testing.assert_allclose(got.keypoints[own], want.keypoints[order], atol=1e-5)
        np.testing.assert_allclose(got.tags[own], want.tags[order], atol=1e-4)  # type: ignore[index]


def test_fast_decoding_finds_the_same_people_in_batches() -> None:
    fast = predictor(fast=True, batch_size=3)
    fast.decoder = FastDecoder(fast.decoder)  # type: ignore[arg-type]
    images = [WIDE, image(128, 64, []), WIDE[:, ::-1].copy()]
    together = fast(images)
    for got, one in zip(together, images, strict=True):
        [alone] = fast([one])
        np.testing.assert_array_equal(got.keypoints, alone.keypoints)


def test_fast_decoding_drops_a_centre() -> None:
    """The last joint is the centre: it has no part in the result."""
    for drop, joints in ((False, (0, 1)), (True, (0,))):
        toy = predictor(drop_center=drop, num_keypoints=1, fast=True)
        rules = AssociativeDecoder(grouping_order=joints, detection_threshold=0.3)
        toy.decoder = FastDecoder(rules)
        [(_, batch)] = toy.prepare([WIDE])
        maps = toy.maps(batch)
        assert maps.heatmaps.shape[1] == len(joints)
        assert toy([WIDE])[0].keypoints.shape == (2, 1, 3)


def test_fast_decoding_is_chosen_by_its_key() -> None:
    assert not built().fast
    made = built("TEST.FAST_DECODE", "True")
    assert made.fast and isinstance(made.decoder, FastDecoder)


@pytest.mark.parametrize("ignore", [True, False])
def test_a_centre_is_dropped_before_decoding_or_after(ignore: bool) -> None:
    made = built(
        "DATASET.WITH_CENTER",
        "True",
        "MODEL.NUM_JOINTS",
        "18",
        "DATASET.NUM_JOINTS",
        "18",
        "TEST.IGNORE_CENTER",
        str(ignore),
    )
    assert made.drop_center is ignore and made.num_keypoints == 17
    assert made.flip_index == (*COCO.flip_index, 17)
    assert list(made.decoder.grouping_order)[:2] == ([0, 1] if ignore else [17, 0])


def test_a_centre_that_is_decoded_is_not_in_the_result() -> None:
    made = predictor(num_keypoints=1)
    assert made([TALL])[0].keypoints.shape == (1, 1, 3)
