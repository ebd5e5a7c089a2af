"""Which categories of an annotation file are the people of a skeleton."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swahr.data.annotation_report import AnnotationError, Report
from swahr.data.values import whole_number, why_no_whole_number
from swahr.files import shorten
from swahr.skeleton import Skeleton
from swahr.words import counted

PERSON = "person"

Category = Mapping[str, Any]


def select_categories(
    data: Mapping[str, Any],
    skeleton: Skeleton,
    report: Report,
    wanted: Sequence[str] = (),
) -> tuple[int, ...]:
    """The ids of the categories whose annotations are used; they are taken as one category.

    wanted: their names; by default, all categories whose keypoints are the skeleton's. If no
    category has the skeleton's names, those with as many keypoints are used, if they agree with
    each other. Files of images to be tested have categories without keypoints; then the category
    "person" is used. The first id is that of the predictions: of "person", if it is among them.

    What is not used is counted in the notes of the report. Raises AnnotationError if no category
    fits, or if its keypoints are the skeleton's in another order.
    """
    categories = _valid_categories(data, report.path)
    if wanted:
        used = [_named(name, categories, skeleton, report.path) for name in wanted]
    else:
        used = _fitting(categories, skeleton, report.path)
    for category in used:
        _check_names(category, skeleton, report)
    ids = tuple(category["id"] for category in used)
    if len(used) > 1:
        names = ", ".join(shorten(category.get("name")) for category in used)
        report.note(f"the categories {names} are taken as one")
    _note_unused(data, [c for c in categories if c["id"] not in ids], report, bool(wanted))
    return ids


def _valid_categories(data: Mapping[str, Any], path: str | Path) -> list[Category]:
    listed = data.get("categories")
    listed = listed if isinstance(listed, list) else []
    categories: list[Category] = [
        {**category, "id": whole_number(category.get("id"))}
        for category in listed
        if isinstance(category, dict) and whole_number(category.get("id")) is not None
    ]
    for category_id, count in Counter(category["id"] for category in categories).items():
        if count > 1:
            raise AnnotationError(f"{path}: {count} categories have the id {category_id}")
    if listed and not categories:
        first = listed[0].get("id") if isinstance(listed[0], dict) else listed[0]
        raise AnnotationError(
            f"{path}: no category has an id that can be used; {why_no_whole_number(first)}"
        )
    return categories


def _named(
    name: str, categories: Sequence[Category], skeleton: Skeleton, path: str | Path
) -> Category:
    for category in categories:
        if category.get("name") == name:
            count = len(_keypoints(category))
            if count not in (0, skeleton.num_keypoints):
                raise AnnotationError(
                    f"{path}: the category {name!r} has {counted(count, 'keypoint')}, the skeleton "
                    f"{skeleton.name!r} has {skeleton.num_keypoints}"
                )
            return category
    known = ", ".join(shorten(category.get("name")) for category in categories) or "none at all"
    raise AnnotationError(f"{path}: there is no category {name!r}; found {known}")


def _fitting(
    categories: Sequence[Category], skeleton: Skeleton, path: str | Path
) -> list[Category]:
    names = list(skeleton.keypoints)
    fitting = [category for category in categories if len(_keypoints(category)) == len(names)]
    fitting = fitting or [
        category
        for category in categories
        if category.get("name") == PERSON and not _keypoints(category)
    ]
    if not fitting:
        raise AnnotationError(f"{path}: {_why_none_fits(categories, skeleton)}")
    fitting.sort(key=lambda category: category.get("name") != PERSON)  # stable: "person" first
    exact = [category for category in fitting if _keypoints(category) == names]
    return exact or [c for c in fitting if _keypoints(c) == _keypoints(fitting[0])]


def _why_none_fits(categories: Sequence[Category], skeleton: Skeleton) -> str:
    given = [
        f"{shorten(category.get('name'))} with {len(_keypoints(category))}"
        for category in categories[:5]
    ]
    found = ", ".join(given) or "none at all"
    if not any(map(_keypoints, categories)):
        remedy = "each lists the names of its keypoints in the entry keypoints"
        return f"no category has keypoints; found {found}; {remedy}"
    return (
        f"no category has {len(skeleton.keypoints)} keypoints, as the skeleton {skeleton.name!r} "
        f"has; found {found}; give the skeleton of these annotations (--skeleton of `swahr check` "
        "and `swahr report`, else DATASET.SKELETON)"
    )


def _check_names(category: Category, skeleton: Skeleton, report: Report) -> None:
    names = list(skeleton.keypoints)
    given = _keypoints(category)
    if not given or given == names:
        return
    first = next(i for i, (a, b) in enumerate(zip(given, names)) if a != b)
    if sorted(given) == sorted(names):
        raise AnnotationError(
            f"{report.path}: the keypoints are not in the order of the skeleton "
            f"{skeleton.name!r}: number {first} is {given[first]}, not {names[first]}"
        )
    report.note(
        f"the keypoints of {shorten(category.get('name'))} have other names than the skeleton's: "
        f"number {first} is {shorten(given[first])}, not {names[first]!r}; their order decides"
    )


def _note_unused(
    data: Mapping[str, Any], unused: Sequence[Category], report: Report, chosen: bool
) -> None:
    counts = Counter(
        whole_number(annotation.get("category_id"))
        for annotation in data.get("annotations", [])
        if isinstance(annotation, dict)
    )
    for category in unused:
        count = counts[category["id"]]
        if count:
            keypoints = counted(len(_keypoints(category)), "other keypoint")
            them = "it" if count == 1 else "them"
            reason = "it is not asked for" if chosen else f"it has {keypoints}"
            report.note(
                f"{counted(count, 'annotation')} of the category "
                f"{shorten(category.get('name'))} (id {category['id']}) not used: {reason}; "
                f"training takes {them} for background"
            )


def _keypoints(category: Category) -> list[str]:
    names = category.get("keypoints")
    return [str(name) for name in names] if isinstance(names, list) else []
