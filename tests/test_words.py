from __future__ import annotations

from swahr.words import counted


def test_one_is_no_plural() -> None:
    assert [counted(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert [counted(n, "person", "people") for n in (1, 2)] == ["1 person", "2 people"]
