"""The associative decoder: against the published rules in plain loops, the published figures, and
the encoder, whose inverse it is; and the choice of a decoder.
"""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swahr.codec import associative, grouping, peaks, refine, tile_bounds
from swahr.codec.associative import ArrayDecoder
from swahr.codec.decode import DECODERS, AssociativeDecoder, People, build_decoder
from swahr.codec.maps import Maps
from swahr.codec.targets import render_heatmaps
from swahr.codec.tile_bounds import NonFiniteError
from swahr.distributed.launch import is_known
from swahr.skeleton import COCO, CROWD_POSE
from tests.oracles import decode as oracle
from tests.oracles.crowds import crowd


def make_decoder(joints: int = 17, **rules: object) -> AssociativeDecoder:
    return AssociativeDecoder(grouping_order=range(joints), **rules)  # type: ignore[arg-type]


def same(people: People, other: People) -> None:
    for got, want in zip(people, other):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"adjust": False},
        {"refine": False},
        {"max_people": 3, "ignore_too_much": True},
        {"use_detection_val": False, "nms_kernel": 3, "nms_padding": 1},
    ],
)
@pytest.mark.parametrize("people, tag_maps", [(0, 2), (1, 1), (5, 2), (31, 2)])
def test_crowds_equal_the_loops(people: int, tag_maps: int, rules: dict) -> None:
    heatmaps, tags = crowd(
        people, size=(96, 128), joints=6, tag_maps=tag_maps, false_peaks=20, stray_tags=True
    )
    order = (3, 0, 1, 5, 4, 2)
    got = AssociativeDecoder(grouping_order=order, **rules)(Maps(heatmaps, tags))[0]
    want, scores = oracle.decode(
        heatmaps[0].numpy(), tags[0].numpy(), oracle.settings(order, **rules)
    )
    np.testing.assert_array_equal(got.keypoints, want[..., :3])
    np.testing.assert_allclose(got.scores, scores, atol=1e-6)


@pytest.mark.parametrize("rules", [{}, {"adjust": False, "refine": False}])
def test_shared_tags_equal_the_loops(rules: dict) -> None:
    heatmaps, tags = crowd(4, size=(64, 96), joints=5)
    tags = tags[:, :1].contiguous()
    got = make_decoder(5, **rules)(Maps(heatmaps, tags))[0]
    want, _ = oracle.decode(
        heatmaps[0].numpy(), tags[0].numpy(), oracle.settings(range(5), **rules)
    )
    np.testing.assert_array_equal(got.keypoints, want[..., :3])


def test_images_of_a_batch_are_independent() -> None:
    """With compiled loops and with tensor operations, in double precision and other strides."""
    maps = [crowd(people, size=(64, 96), joints=5) for people in (4, 0, 9)]
    heatmaps = torch.cat([h for h, _ in maps])
    tags = torch.cat([t for _, t in maps])
    decoder = make_decoder(5)
    alone = [decoder(Maps(*pair))[0] for pair in maps]
    strided = tags.permute(4, 0, 1, 2, 3).contiguous().permute(1, 2, 3, 4, 0)
    for batch in (
        decoder(Maps(heatmaps, tags)),
        decoder.decode_batch(heatmaps, tags),
        decoder(Maps(heatmaps.double(), strided)),
    ):
        for people, want in zip(batch, alone, strict=True):
            same(people, want)
    for decode_empty in (decoder.decode_images, decoder.decode_batch):
        assert decode_empty(heatmaps[:0], tags[:0]) == []


@pytest.mark.parametrize("name, skeleton", [("coco", COCO), ("crowdpose", CROWD_POSE)])
def test_published_maps(shared, name: str, skeleton) -> None:
    figures = np.load(shared / f"golden/maps_{name}.npz")
    heatmaps, tags = (
        torch.from_numpy(figures[part].astype(np.float32))[None] for part in ("heatmaps", "tags")
    )
    decoder = AssociativeDecoder(grouping_order=skeleton.grouping_order, detection_threshold=0.12)
    for decode_maps in (decoder.decode_images, decoder.decode_batch):
        [people] = decode_maps(heatmaps, tags)
        np.testing.assert_allclose(people.keypoints, figures["people"][..., :3], atol=1e-5)
        np.testing.assert_allclose(people.scores, figures["scores"], atol=1e-6)


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_what_was_rendered_is_decoded(count: int, seed: int) -> None:
    """People whose joints lie apart and whose tags differ are found to within a pixel, and nothing
    else is.
    """
    rng = np.random.default_rng(seed)
    # A cell of its own for each joint.
    cells = rng.permuted(np.tile(np.arange(49), (3, 1)), axis=1)[:, :count].T
    joints = np.stack([cells % 7 * 12 + 6, cells // 7 * 12 + 6, np.ones_like(cells)], 2).astype(
        np.float32
    )
    joints[..., :2] += rng.uniform(-2, 2, joints[..., :2].shape)
    heatmaps = render_heatmaps(torch.from_numpy(joints)[None], 96, 2)
    tags = torch.full((1, 3, 96, 96, 1), -5.0)
    for person, (k, (x, y, _)) in (
        (p, joint) for p in range(count) for joint in enumerate(joints[p])
    ):
        tags[0, k, int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 3.0 * person
    [people] = make_decoder(3)(Maps(heatmaps, tags))
    assert len(people.scores) == count
    order = np.argsort(people.tags[:, 0])
    np.testing.assert_allclose(people.tags[order, 0], 3.0 * np.arange(count))
    assert np.abs(people.keypoints[order, :, :2] - joints[..., :2]).max(initial=0) <= 1
    np.testing.assert_allclose(people.scores, 1)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([-1.0, 0.0, 0.5, 2.0, 1e30]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.6, 1e38]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_coordinates_stay_in_the_map(
    height: int, width: int, level: float, values: int, noise: float, batched: bool, seed: int
) -> None:
    """Constant maps, equal maxima, single pixels, huge values: within a pixel of the map."""
    rng = np.random.default_rng(seed)
    heatmaps = torch.full((1, 2, height, width), level)
    if seed % 2:
        heatmaps[:, :, rng.integers(height), rng.integers(width)] = 1
    tags = torch.from_numpy(
        rng.normal(0, noise, (1, 2, height, width, values)).clip(-3e38, 3e38)
    ).float()
    decoder = make_decoder(2)
    [people] = (decoder.decode_batch if batched else decoder.decode_images)(heatmaps, tags)
    assert np.isfinite(people.keypoints).all()
    x, y, _ = np.moveaxis(people.keypoints, -1, 0)
    assert (x >= -1).all() and (x <= width).all() and (y >= -1).all() and (y <= height).all()


@given(
    st.integers(0, 300),
    st.sampled_from([1, 30, 300]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 2),
    st.integers(0, 2**32 - 1),
)
@example(300, 300, True, True, 2, 0)
@example(300, 30, True, False, 1, 0)
@settings(max_examples=12, deadline=None)
def test_crowds_of_up_to_three_hundred(
    people: int, most: int, equal: bool, apart: bool, values: int, seed: int
) -> None:
    """Each joint of each person is a peak of its own, equally high or not, with tags that differ
    clearly or hardly: both ways of decoding find the same people, and all of them if max_people
    allows it.
    """
    rng = np.random.default_rng(seed)
    heatmaps = torch.zeros(1, 3, 60, 100)
    tags = torch.zeros(1, 3, 60, 100, values)
    names = torch.from_numpy(
        rng.permutation(people) * 3.0 if apart else rng.normal(0, 2, people)
    ).float()
    for joint in range(3):
        cells = torch.from_numpy(rng.permutation(20 * 33)[:people])  # of three by three pixels
        y = cells // 33 * 3 + 1
        x = cells % 33 * 3 + 1
        heatmaps[0, joint, y, x] = (
            1.0 if equal else torch.from_numpy(rng.uniform(0.2, 1, people)).float()
        )
        tags[0, joint, y, x] = names[:, None]
    decoder = make_decoder(3, max_people=most, nms_kernel=3, nms_padding=1)
    [found] = decoder.decode_images(heatmaps, tags)
    same(found, decoder.decode_batch(heatmaps, tags)[0])
    assert np.isfinite(found.keypoints).all() and len(found.scores) <= 3 * most
    if apart and most == 300:
        assert sorted(found.tags[:, 0].tolist()) == sorted(names.tolist())
        assert (found.keypoints[..., 2] > 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_maps_must_be_finite(bad: float, which: int) -> None:
    maps = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8, 1)]
    maps[which][0, 1, 7, 7] = bad
    decoder = make_decoder(2)
    for decode_maps in (decoder.decode_images, decoder.decode_batch):
        with pytest.raises(NonFiniteError, match="have non-finite values") as caught:
            decode_maps(*maps)
        assert is_known(caught.value)  # which commands print as one line


@pytest.mark.parametrize(
    "heatmaps, tags, message",
    [
        (
            (1, 3, 8, 8),
            (1, 3, 8, 8, 1),
            r"heatmaps have shape \(1, 3, 8, 8\); it should be \(B, 2, H, W\)",
        ),
        ((2, 8, 8), (2, 8, 8, 1), "heatmaps have shape"),
        ((1, 2, 0, 8), (1, 2, 0, 8, 1), "heatmaps have shape"),
        (
            (1, 2, 8, 8),
            (1, 3, 8, 8, 1),
            r"tags have shape \(1, 3, 8, 8, 1\); it should be \(1, 2 or 1, 8, 8, T\)",
        ),
        ((1, 2, 8, 8), (1, 2, 8, 8), "tags have shape"),
        ((1, 2, 8, 8), (1, 2, 8, 4, 1), "tags have shape"),
        ((1, 2, 8, 8), (1, 2, 8, 8, 0), "tags have shape"),
    ],
)
def test_shapes_must_fit(heatmaps: tuple[int, ...], tags: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_decoder(2)(Maps(torch.zeros(heatmaps), torch.zeros(tags)))


def test_maps_must_be_on_one_device() -> None:
    with pytest.raises(ValueError, match="heatmaps are on cpu and tags on meta"):
        make_decoder(2)(Maps(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8, 1, device="meta")))


def test_maps_must_have_tags() -> None:
    with pytest.raises(ValueError, match="the maps have no tags, by which this decoder groups"):
        make_decoder(2)(Maps(torch.zeros(1, 2, 8, 8)))


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"grouping_order": (0, 2)}, "grouping_order"),
        ({"grouping_order": ()}, "grouping_order"),
        ({"max_people": 0}, "max_people is 0; it must be 1 or more"),
        ({"detection_threshold": -0.1}, "detection_threshold is -0.1; it must be 0 or more"),
        ({"detection_threshold": float("nan")}, "detection_threshold is nan"),
        ({"tag_scale": 0.0}, "tag_scale is 0.0; it must be above 0"),
        ({"nms_kernel": 5, "nms_padding": 1}, "nms_kernel is 5 and nms_padding 1"),
        ({"nms_kernel": 4, "nms_padding": 2}, "nms_kernel is 4"),
    ],
)
def test_rules_must_make_sense(rules: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AssociativeDecoder(**({"grouping_order": (0, 1)} | rules))


def test_the_configuration_is_read() -> None:
    """Each key reaches the decoder: changing it changes the result."""
    test = dict(
        DECODER="associative",
        DETECTION_THRESHOLD=0.1,
        TAG_SCALE=1.0,
        TAG_THRESHOLD=1.0,
        NMS_KERNEL=5,
        NMS_PADDING=2,
        USE_DETECTION_VAL=True,
        IGNORE_TOO_MUCH=False,
        ADJUST=True,
        REFINE=True,
        SUBPIXEL=False,
        OKS_NMS=0.0,
    )
    heatmaps, tags = crowd(6, size=(96, 128), false_peaks=60, stray_tags=True)

    def keypoints(people: int = 30, **changes: object) -> np.ndarray:
        cfg = SimpleNamespace(
            DATASET=SimpleNamespace(MAX_NUM_PEOPLE=people), TEST=SimpleNamespace(**(test | changes))
        )
        return build_decoder(cfg, COCO)(Maps(heatmaps, tags))[0].keypoints

    published = keypoints()
    with_defaults = AssociativeDecoder(grouping_order=COCO.grouping_order)
    np.testing.assert_array_equal(published, with_defaults(Maps(heatmaps, tags))[0].keypoints)
    others = [
        {"people": 2},
        {"DETECTION_THRESHOLD": 0.5},
        {"TAG_SCALE": 0.1},
        {"TAG_THRESHOLD": 0.1},
        {"ADJUST": False},
        {"NMS_KERNEL": 41, "NMS_PADDING": 20},
        {"USE_DETECTION_VAL": False},
        {"REFINE": False},
        {"SUBPIXEL": True},
        {"OKS_NMS": 0.001},
    ]
    for other in (keypoints(**changes) for changes in others):
        assert other.shape != published.shape or (other != published).any()
    assert len(keypoints(people=2, IGNORE_TOO_MUCH=True)) < len(keypoints(people=2))


def test_a_decoder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in DECODERS and its name in TEST.DECODER."""
    chosen = SimpleNamespace(TEST=SimpleNamespace(DECODER="none"))

    def decoder(maps: Maps) -> list[People]:
        return []

    monkeypatch.setitem(DECODERS, "none", lambda cfg, skeleton: decoder)
    assert build_decoder(chosen, COCO) is decoder


def test_an_unknown_decoder() -> None:
    cfg = SimpleNamespace(TEST=SimpleNamespace(DECODER="assoc"))
    with pytest.raises(
        ValueError,
        match="^TEST.DECODER is 'assoc'; it is one of associative; "
        "a module of your own is named with --import$",
    ):
        build_decoder(cfg, COCO)


def test_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """warm_up compiles all of them: no size of maps, number of people or number of tag maps needs
    another compilation.
    """
    called = []
    for module, name in (
        (associative, "find_missing"),
        (peaks, "_find_peaks"),
        (grouping, "_group"),
    ):
        kernel = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, kernel=kernel, name=name: called.append(name) or kernel(*a)
        )
    make_decoder(2, max_people=100).warm_up()
    assert sorted(called) == ["_find_peaks", "_group", "find_missing"]
    monkeypatch.undo()
    decoder = make_decoder(2)
    decoder(Maps(torch.ones(1, 2, 1, 1), torch.ones(1, 1, 1, 1, 1)))
    decoder(Maps(*crowd(2, size=(60, 40), joints=2, tag_maps=1)))
    for compiled in (
        tile_bounds._tile_bounds,
        peaks._find_peaks,
        grouping._group,
        grouping._mean_tags,
        refine._find_missing,
    ):
        assert len(compiled.signatures) == 1


@pytest.mark.parametrize("rules", [{}, {"subpixel": True, "oks_nms": 0.5, "sigmas": (0.1,) * 2}])
def test_arrays_are_decoded_as_tensors_are(rules: dict) -> None:
    """The decoder that works without torch, also in maps smaller than its peaks."""
    heatmaps, tags = crowd(5, size=(80, 64), joints=2, tag_maps=2)
    arrays = ArrayDecoder(grouping_order=range(2), **rules)
    tensors = make_decoder(2, **rules)
    [found] = arrays.decode_arrays(heatmaps.numpy(), tags.numpy())
    [expected] = tensors(Maps(heatmaps, tags))
    assert len(expected.scores) >= 5
    for name in People._fields:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    [corner] = arrays.decode_arrays(heatmaps.numpy()[..., :3, :4], tags.numpy()[..., :3, :4, :])
    assert len(corner.scores) == 0
    with pytest.raises(ValueError, match="heatmaps have shape"):
        arrays.decode_arrays(heatmaps.numpy()[0], tags.numpy())


def test_tag_scale_multiplies_the_tags() -> None:
    """Also where maps are arrays, in tensor operations, and where grouping alone is shown."""
    heatmaps, tags = crowd(5, size=(80, 64), joints=2, tag_maps=2)
    [want] = make_decoder(2)(Maps(heatmaps, tags * 0.25))
    assert len(want.scores) != len(make_decoder(2)(Maps(heatmaps, tags))[0].scores)
    decoder = make_decoder(2, tag_scale=0.25)
    [batched] = decoder.decode_batch(heatmaps, decoder.scaled(tags))
    [arrays] = ArrayDecoder(grouping_order=range(2), tag_scale=0.25).decode_arrays(
        heatmaps.numpy(), tags.numpy()
    )
    for found in (decoder(Maps(heatmaps, tags))[0], batched, arrays):
        for name in People._fields:
            assert np.array_equal(getattr(found, name), getattr(want, name)), name
    _, peak_of_joint = decoder.grouped(heatmaps[0].numpy(), tags[0].numpy())
    assert len(peak_of_joint) == len(want.scores)


def test_arrays_are_decoded_without_torch() -> None:
    program = "import sys, swahr.codec.associative; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
