"""Values with a tag of YAML's that their text does not fit: one line, in a file and as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from swahr.config import ConfigError, load_config
from swahr.config.values import coerce

TAGGED = ["!!int ''", "!!int '-'", "!!float ''", "!!bool 5", "!!timestamp abc", "!!float abc"]


@pytest.mark.parametrize("text", TAGGED)
def test_a_tag_that_does_not_fit_is_one_line_in_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"GPUS: [0]\nTRAIN.LR: {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = f"{path}:2: not valid YAML: this value cannot be understood"
    assert caught.value.problems == [line]


@pytest.mark.parametrize("text", [*TAGGED, "[!!int '']", "&a [*a]", "2024-99-99"])
@pytest.mark.parametrize(
    ("default", "kind"),
    [(0.1, "a number"), (1, "a whole number"), (True, "true or false"), ([1], "a list of whole")],
)
def test_a_tag_that_does_not_fit_is_text_on_the_command_line(
    default: object, kind: str, text: str
) -> None:
    with pytest.raises(ValueError, match=f"^must be {kind}.*, not ") as caught:
        coerce(text, default)
    assert type(caught.value) is ValueError and repr(text) in str(caught.value)


def test_a_tag_that_fits_is_read() -> None:
    assert coerce("!!int 0x10", 1) == 16
    assert coerce("!!float '3'", 0.1) == 3.0
    assert coerce("!!bool yes", False) is True
    assert coerce("[!!int '2', 3]", [1]) == [2, 3]
