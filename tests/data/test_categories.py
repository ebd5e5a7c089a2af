"""Which categories of an annotation file are used, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.data.annotation_report import AnnotationError
from swahr.data.keypoints import KeypointDataset
from swahr.evaluation.metrics import evaluate
from swahr.skeleton import COCO

Tree = Callable[..., Path]
Made = Callable[..., dict[str, Any]]
NAMES = list(COCO.keypoints)
OWN_NAMES = [f"joint {i}" for i in range(17)]


def opened(root: Path, **options: Any) -> KeypointDataset:
    file = root / "annotations/person_keypoints_train2017.json"
    return KeypointDataset(file, root / "images/train2017", COCO, **options)


def with_categories(made: Made, *categories: tuple[int, str, list[str] | None]) -> dict[str, Any]:
    """One image and one person for each category."""
    data = made((1,) * len(categories))
    data["categories"] = [
        {"id": i, "name": name} | ({} if names is None else {"keypoints": names})
        for i, name, names in categories
    ]
    for annotation, (category_id, _, _) in zip(data["annotations"], categories):
        annotation["category_id"] = category_id
    return data


def people(dataset: KeypointDataset) -> list[int]:
    return [len(dataset.joints(image_id)) for image_id in dataset.image_ids]


def test_categories_with_the_skeletons_keypoints_are_taken_as_one(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    data = with_categories(made, (4, "man", NAMES), (2, "woman", NAMES))
    dataset = opened(tree(data))
    assert people(dataset) == [1, 1] and dataset.category_ids == (4, 2)
    assert dataset.category_id == 4
    assert "the categories 'man', 'woman' are taken as one" in caplog.text
    records = [
        {"image_id": a["image_id"], "category_id": 4, "keypoints": a["keypoints"], "score": 0.9}
        for a in data["annotations"]
    ]
    stats = evaluate(dataset.coco, records, COCO)
    assert stats["AP"] == stats["AR"] == 1
    assert evaluate(dataset.coco, records[:1], COCO)["AR"] == 0.5


def test_predictions_are_people_where_there_are_such(tree: Tree, made: Made) -> None:
    data = with_categories(made, (4, "statue", NAMES), (2, "person", NAMES))
    dataset = opened(tree(data))
    assert dataset.category_id == 2 and people(dataset) == [1, 1]


@pytest.mark.parametrize("names", [["a", "b"], [], None, OWN_NAMES])
def test_others_are_counted_and_named(
    tree: Tree, made: Made, names: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those that have as many keypoints, but with other names than the skeleton's."""
    dataset = opened(tree(with_categories(made, (1, "person", NAMES), (7, "dog", names))))
    assert people(dataset) == [1, 0]
    reason = f"it has {len(names or [])} other keypoints; training takes it for background"
    assert f"1 annotation of the category 'dog' (id 7) not used: {reason}" in caplog.text
    assert [a["category_id"] for a in dataset.coco["annotations"]] == [1]
    assert [c["id"] for c in dataset.coco["categories"]] == [1]


def test_categories_can_be_chosen(tree: Tree, made: Made, caplog: pytest.LogCaptureFixture) -> None:
    data = with_categories(
        made, (1, "man", NAMES), (2, "woman", NAMES), (3, "cat", OWN_NAMES), (4, "child", None)
    )
    root = tree(data)
    chosen = opened(root, categories=["child", "woman"])
    assert people(chosen) == [0, 1, 0, 1] and chosen.category_ids == (4, 2)
    assert all(chosen.mask(image_id).all() for image_id in chosen.image_ids)  # as the note says
    assert "1 annotation of the category 'man' (id 1) not used: it is not asked for" in caplog.text
    assert people(opened(root, categories=["cat"])) == [0, 0, 1, 0]
    assert "the keypoints of 'cat' have other names than the skeleton's" in caplog.text


@pytest.mark.parametrize(
    "wanted, said",
    [
        ("child", "there is no category 'child'; found 'man', 'dog'"),
        ("dog", "the category 'dog' has 2 keypoints, the skeleton 'coco' has 17"),
    ],
)
def test_a_choice_that_does_not_fit(tree: Tree, made: Made, wanted: str, said: str) -> None:
    root = tree(with_categories(made, (1, "man", NAMES), (2, "dog", ["a", "b"])))
    with pytest.raises(AnnotationError, match=said):
        opened(root, categories=[wanted])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (None, "no category has keypoints; found 'dog' with 0; each lists the names of its key"),
        (
            ["a"],
            r"found 'dog' with 1; give the skeleton .* \(--skeleton of `swahr check` and `swah",
        ),
    ],
)
def test_the_advice_fits_what_was_found(
    tree: Tree, made: Made, names: list[str] | None, said: str
) -> None:
    with pytest.raises(AnnotationError, match=said):
        opened(tree(with_categories(made, (1, "dog", names))))


def test_other_names_in_the_skeletons_number_are_used_and_named(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as they agree with each other."""
    other = [f"part {i}" for i in range(17)]
    data = with_categories(made, (1, "ape", OWN_NAMES), (2, "monkey", OWN_NAMES), (3, "cat", other))
    assert people(opened(tree(data))) == [1, 1, 0]
    assert "number 0 is 'joint 0', not 'nose'; their order decides" in caplog.text


def test_the_order_of_a_chosen_category_is_checked_too(tree: Tree, made: Made) -> None:
    data = with_categories(made, (1, "man", NAMES), (2, "woman", NAMES[::-1]))
    root = tree(data)
    assert people(opened(root)) == [1, 0]
    with pytest.raises(AnnotationError, match="not in the order of the skeleton 'coco': number 0"):
        opened(root, categories=["woman"])


def test_two_categories_with_one_id(tree: Tree, made: Made) -> None:
    data = with_categories(made, (1, "man", NAMES), (1, "dog", ["a"]))
    with pytest.raises(AnnotationError, match="2 categories have the id 1"):
        opened(tree(data))


def test_categories_without_people_are_no_news(tree: Tree, made: Made) -> None:
    data = made((1,))
    data["categories"] += [{"id": i, "name": f"thing {i}"} for i in range(2, 81)]
    root = tree(data)
    assert opened(root).report.notes == []
    del data["annotations"]
    (root / "annotations/person_keypoints_train2017.json").write_text(json.dumps(data))
    assert opened(root).report.notes == []
