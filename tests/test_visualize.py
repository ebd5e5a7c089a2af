"""Drawings change the pixels they should, and take whatever a network or a file may give them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from swahr.skeleton import COCO, CROWD_POSE, Skeleton
from swahr.visualize import (
    draw_heatmap,
    draw_heatmaps,
    draw_people,
    draw_points,
    draw_scale_map,
    draw_tags,
    make_grid,
    panel,
    person_colors,
    save_image,
)


def grey(height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), 120, np.uint8)


def one_person(score: float = 0.9) -> np.ndarray:
    person = np.zeros((1, 17, 3))
    person[0, 5], person[0, 7] = (20, 20, score), (60, 40, score)  # left shoulder and elbow
    return person


def test_a_limb_is_drawn_between_its_joints_and_nowhere_else() -> None:
    image = grey()
    drawn = draw_people(image, one_person(), COCO)
    changed = (drawn != image).any(axis=2)
    assert (image == 120).all() and changed[20, 20] and changed[40, 60] and changed[30, 40]
    assert not changed[:12].any() and not changed[50:].any() and not changed[22:, :12].any()
    _, left, right = (np.array(color) for color in person_colors(0))
    assert np.abs(drawn[30, 40] - left).sum() < np.abs(drawn[30, 40] - right).sum()


def test_people_have_different_colors_and_sides_too() -> None:
    colors = [color for i in range(8) for color in person_colors(i)]
    assert len(set(colors)) == len(colors)


def test_a_skeletons_own_colors_are_those_of_joints_and_limbs() -> None:
    own = replace(COCO, colors=((255, 0, 0),) * 6 + ((0, 255, 0),) * 11)
    two = np.concatenate([one_person(), one_person() + [0, 30, 0]])
    drawn = draw_people(grey(90), two, own)
    for y in (0, 30):
        assert drawn[20 + y, 20].tolist() == [255, 0, 0]  # the shoulder
        assert drawn[40 + y, 60].tolist() == drawn[30 + y, 40].tolist() == [0, 255, 0]


def test_joints_below_the_threshold_are_left_out() -> None:
    image = grey()
    np.testing.assert_array_equal(draw_people(image, one_person(0.2), COCO, threshold=0.2), image)
    assert (draw_people(image, one_person(0.2), COCO, threshold=0.1) != image).any()
    broken = one_person()
    broken[0, 5, 0] = np.nan
    assert not (draw_people(image, broken, COCO) != image).any(axis=2)[20, 20]


def test_scores_and_boxes_are_written() -> None:
    image = grey()
    plain = draw_people(image, one_person(), COCO)
    for extra in ({"scores": [0.5]}, {"boxes": True}):
        assert (draw_people(image, one_person(), COCO, **extra) != plain).any()


def test_unsure_joints_are_hollow_and_their_limbs_dashed() -> None:
    image = grey(400, 400)
    person = one_person()
    person[0, 5, :2], person[0, 7, :2] = (50, 200), (350, 200)
    person[0, 7, 2] = 0.2
    solid = draw_people(image, person, COCO, threshold=0.1)
    dashed = draw_people(image, person, COCO, threshold=0.1, unsure=0.2)
    line = (solid[200, 60:340] != 120).any(axis=1)
    dashes = (dashed[200, 60:340] != 120).any(axis=1)
    assert line.all() and 0.3 < dashes.mean() < 0.8
    assert np.abs(np.diff(dashes.astype(int))).sum() >= 6
    assert (solid[200, 50] == dashed[200, 50]).all() and dashed[200, 50].max() > 100
    assert solid[200, 350].max() > 100 and dashed[200, 350].max() < 60
    np.testing.assert_array_equal(draw_people(image, person, COCO, unsure=0.1), solid)


def test_ids_choose_the_hues_and_are_written() -> None:
    image = grey(120, 160)
    people = np.concatenate([one_person(), one_person() + (70, 60, 0)])
    plain = draw_people(image, people, COCO)
    swapped = draw_people(image, people[::-1], COCO, ids=[1, 0])
    np.testing.assert_array_equal(plain[80, 90], person_colors(1)[1])
    np.testing.assert_array_equal(swapped[80, 90], plain[80, 90])
    assert (draw_people(image, people, COCO, ids=[4, 5]) != plain).any()
    nobody = draw_people(image, people[:1], COCO, ids=[-1])
    assert (nobody != draw_people(image, people[:1], COCO, ids=[3])).any()


def test_flip_pairs_tell_the_sides_of_joints_without_left_and_right() -> None:
    skeleton = Skeleton("hand", ("thumb_l", "thumb_r", "root"), ((0, 1),), (0.1,) * 3)
    points = np.array([[(20, 20, 1), (60, 20, 1), (40, 50, 1)]])
    drawn = draw_people(grey(), points, skeleton)
    middle, left, right = person_colors(0)
    for (x, y), color in zip(((20, 20), (60, 20), (40, 50)), (left, right, middle)):
        np.testing.assert_array_equal(drawn[y, x], color)


def test_points_are_discs_and_with_labels_rings() -> None:
    image = grey()
    red = (250, 0, 0)
    discs = draw_points(image, [(20, 30), (60.5, 30)], [red, red], 4)
    np.testing.assert_array_equal(discs[30, [20, 60]], [red, red])
    rings = draw_points(image, [(20, 30)], [red], 6, ["1"])
    assert rings[30, 20].max() < 60 and (image == 120).all()
    assert rings[30, 15, 0] > 200 and rings[30, 15, 1] == 0
    assert (rings[:, 28:] != 120).any() and not (discs[:, 28:50] != 120).any()
    np.testing.assert_array_equal(draw_points(image, [], [], 4), image)


def test_every_person_has_its_own_score() -> None:
    image, people = grey(120, 160), np.concatenate([one_person(), one_person() + (70, 60, 0)])

    def drawn(*scores: float) -> np.ndarray:
        return draw_people(image, people, COCO, scores)

    for scores in ((0, 0.75), (0.25, 0), (0.75, 0.25)):
        assert (drawn(*scores) != drawn(0.25, 0.75)).any(), scores


def test_surer_people_are_drawn_over_others_in_their_own_colours() -> None:
    """Two people in the same place; of equal scores the later one is above."""
    both = np.concatenate([one_person(), one_person()])
    for scores, above in (((0.7, 0.2), 0), ((0.2, 0.7), 1), ((0.5, 0.5), 1), (None, 1)):
        drawn = draw_people(grey(), both, COCO, scores)
        assert drawn[40, 60].tolist() == list(person_colors(above)[1]), scores
    drawn = draw_people(grey(), both, COCO, (0.7, 0.2), ids=(5, 6))
    assert drawn[40, 60].tolist() == list(person_colors(5)[1])


def written(height: int, width: int, corner: tuple[int, int]) -> np.ndarray:
    """(n, 2), x and y of the pixels that a score changes on an image; its person is small."""
    image = grey(height, width)
    person = one_person()
    person[0, 5, :2], person[0, 7, :2] = corner, np.add(corner, (4, 4))
    plain, scored = (draw_people(image, person, COCO, scores) for scores in (None, [0.37]))
    return np.argwhere((plain != scored).any(axis=2))[:, ::-1]


def test_scores_are_as_large_as_the_image_asks() -> None:
    heights = [np.ptp(written(side, side, (side // 3,) * 2)[:, 1]) for side in (120, 640, 3840)]
    assert heights[0] < 13 and heights[0] < heights[1] < 18 and 60 < heights[2] < 80


def test_scores_at_a_border_are_whole() -> None:
    whole = np.ptp(written(120, 120, (50, 50)), axis=0)
    for corner in ((-2, 50), (114, 50), (50, 0)):
        place = written(120, 120, corner)
        assert (np.ptp(place, axis=0) >= whole - 1).all() and place.min() >= 0, corner
    assert not len(written(120, 120, (140, 50)))  # nobody's score stands at the border


@pytest.mark.parametrize("at", [(50, 60), (50, 5), (50, 110)])
def test_no_score_covers_another(at: tuple[int, int]) -> None:
    """The scores of three people in one place take the room of three."""

    def written_pixels(count: int) -> int:
        people = np.zeros((count, 17, 3))
        people[:, 5] = *at, 1
        plain, scored = (
            draw_people(grey(120, 120), people, COCO, scores) for scores in (None, [0.5] * count)
        )
        return int((plain != scored).any(axis=2).sum())

    assert written_pixels(3) > 2.7 * written_pixels(1)  # outlines touch


def test_labels_of_points_begin_beside_their_rings() -> None:
    ring, labelled = (draw_points(grey(), [(20, 30)], [(250, 0, 0)], 9, [text]) for text in " 0")
    changed = np.flatnonzero((ring != labelled).any(axis=(0, 2)))
    assert changed.min() > 20 + 9 * 1.35


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (60, 80)])
def test_nobody_and_any_size(size: tuple[int, int]) -> None:
    image = grey(*size)
    np.testing.assert_array_equal(draw_people(image, np.zeros((0, 17, 3)), COCO), image)
    np.testing.assert_array_equal(draw_people(image, np.zeros((2, 14, 3)), CROWD_POSE), image)
    assert draw_people(image, one_person(), COCO, scores=[1.0], boxes=True).shape == image.shape
    for count in (0, 1, 3):
        maps = np.random.default_rng(0).normal(size=(count, 5, 7)).astype(np.float32)
        for draw in (draw_heatmap, draw_scale_map, draw_tags):
            assert draw(image, maps).shape == image.shape
        assert draw_heatmaps(image, maps).dtype == np.uint8
    wide = np.random.default_rng(0).normal(size=(17, 5, 7)).astype(np.float32)
    assert panel(image, wide, wide, wide, wide[:1]).ndim == 3


def test_a_peak_is_red_where_it_is() -> None:
    heatmaps = np.zeros((3, 30, 40), np.float32)
    heatmaps[1, 10, 30] = 1
    drawn = draw_heatmap(grey(), heatmaps)
    red = drawn[..., 0].astype(int) - drawn[..., 2]
    assert np.unravel_index(red.argmax(), red.shape)[0] in (20, 21) and red[40].max() < 0
    grid = draw_heatmaps(grey(), heatmaps)
    assert grid.shape == (2 * 60 + 2, 2 * 80 + 2, 3)
    assert (grid[:60, 82:] != grid[:60, :80]).any() and (grid[62:, :80] == grid[:60, :80]).all()


def test_scale_maps_have_two_signs() -> None:
    scales = np.zeros((2, 60, 80), np.float32)
    scales[0, 10, 10], scales[1, 50, 70] = 1, -1
    drawn = draw_scale_map(grey(), scales).astype(int)
    assert drawn[10, 10, 0] > drawn[10, 10, 2] and drawn[50, 70, 0] < drawn[50, 70, 2]
    assert len(set(drawn[30, 40].tolist())) == 1


def test_tags_are_colored_where_joints_are() -> None:
    tags = np.zeros((2, 60, 80), np.float32)
    heatmaps = np.zeros_like(tags)
    tags[0, :, :40], tags[1, :, 40:] = -3, 5
    heatmaps[0, 30, 10:14] = heatmaps[1, 30, 60:64] = 1
    drawn = draw_tags(grey(), tags, heatmaps).astype(int)
    assert drawn[30, 12, 2] > drawn[30, 12, 0] and drawn[30, 62, 0] > drawn[30, 62, 2]
    assert np.ptp(drawn[5, 5]) == 0
    assert draw_tags(grey(), tags[:1], heatmaps).shape == (60, 80, 3)  # one tag map for all joints
    assert np.ptp(draw_tags(grey(), np.zeros((1, 4, 4))), axis=2).any()


def test_panel_has_a_row_for_each_sample_and_a_column_for_each_map() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    maps = rng.random((2, 17, 20, 20)).astype(np.float32)
    assert panel(images, maps, maps, maps, maps, cell=64).shape == (
        18 + 2 * (64 + 2),
        5 * 64 + 4 * 2,
        3,
    )
    assert panel(images, maps, maps, cell=64).shape == (18 + 2 * (64 + 2), 3 * 64 + 2 * 2, 3)
    assert panel(images[0], maps[0], maps[0], cell=64).shape == (18 + 64 + 2, 3 * 64 + 2 * 2, 3)
    assert panel(images[:0], maps[:0], maps[:0]).shape == (1, 1, 3)


def test_tile_places_images_in_rows() -> None:
    parts = [
        np.full((h, w, 3), value, np.uint8) for h, w, value in ((4, 6, 10), (5, 3, 20), (2, 2, 30))
    ]
    grid = make_grid(parts, 2, pad=1)
    assert grid.shape == (5 + 1 + 2, 6 + 1 + 3, 3)
    assert (
        grid[0, 0, 0] == 10 and grid[0, 7, 0] == 20 and grid[6, 0, 0] == 30 and grid[5, 0, 0] == 255
    )
    assert make_grid([], 3).shape == (1, 1, 3)


def test_images_are_saved_whole_and_as_rgb(tmp_path: Path) -> None:
    image = grey()
    image[..., 0] = 250
    save_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    for name in ("a.person", "a"):
        with pytest.raises(ValueError, match="written as .png or .jpg"):
            save_image(tmp_path / name, image)


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(
        ValueError, match=r"keypoints: shape \(1, 14, 3\); skeleton coco needs \(P, 17, 3\)"
    ):
        draw_people(grey(), np.ones((1, 14, 3)), COCO)
    with pytest.raises(
        ValueError, match=r"image: float64 \(4, 4, 3\); it must be \(H, W, 3\) uint8 RGB"
    ):
        draw_people(np.zeros((4, 4, 3)), np.zeros((0, 17, 3)), COCO)
    with pytest.raises(ValueError, match=r"maps: shape \(5,\)"):
        draw_heatmap(grey(), np.zeros(5))
