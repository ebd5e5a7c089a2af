"""The table of settings, its listings, and keys that a user's module adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swahr.config import SCHEMA, ConfigError, Key, defaults, list_keys, load_config
from swahr.config.rules import without_effect
from swahr.config.schema import flatten, lookup, sections, unflatten

ROOT = Path(__file__).resolve().parents[2]
MAIN = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"


@pytest.fixture
def toy_keys() -> Iterator[None]:
    """Two keys of a user's module."""
    SCHEMA["TOY.WIDTH"] = Key(8, above=0, meaning="channels of the toy")
    SCHEMA["TOY.WEIGHTS"] = Key([1.0], at_least=0, per_stage=True, meaning="weight of the toy loss")
    yield
    del SCHEMA["TOY.WIDTH"], SCHEMA["TOY.WEIGHTS"]


def test_the_tree_of_defaults_has_the_keys_of_the_table() -> None:
    flat = flatten(defaults())
    assert list(flat.items()) == [(name, key.default) for name, key in SCHEMA.items()]
    assert unflatten(flat) == defaults() and defaults().is_frozen()
    assert all(lookup(defaults(), name) == value for name, value in flat.items())
    assert "MODEL.EXTRA.DECONV" in sections() and "WORKERS" not in sections()


def test_a_module_adds_keys_with_one_line_each(toy_keys: None) -> None:
    cfg = load_config(MAIN, ["TOY.WIDTH=16", "TOY.WEIGHTS=[0.5]"])
    assert cfg.TOY.WIDTH == 16 and cfg.TOY.WEIGHTS == [0.5, 0.5]
    with pytest.raises(ConfigError) as caught:
        load_config(MAIN, ["TOY.WIDTH=0", "TOY.WIDHT=1", "TOY=1"])
    assert caught.value.problems == [
        "command line: TOY.WIDHT: unknown key; the nearest one is TOY.WIDTH",
        "command line: TOY: is a section; name one of its keys, as in TOY.WIDTH",
    ]
    with pytest.raises(ConfigError, match="TOY.WIDTH: must be above 0, not 0"):
        load_config(MAIN, ["TOY.WIDTH=0"])
    assert "channels of the toy" in list_keys()


def test_keys_do_not_outlive_the_module_that_adds_them() -> None:
    with pytest.raises(ConfigError, match="TOY.WIDTH: unknown key"):
        load_config(MAIN, ["TOY.WIDTH=16"])


@pytest.mark.parametrize(
    ("key", "right", "good", "bad"),
    [
        (Key(1, "", above=0), "above 0", [1], [0, -1]),
        (Key(1, "", at_least=0), "0 or more", [0], [-1]),
        (Key(1.0, "", at_least=0, at_most=1), "from 0 to 1", [0, 1], [-0.1, 1.1]),
        (Key(1.0, "", above=0, below=0.5), "above 0 and below 0.5", [0.1], [0, 0.5]),
        (Key(1, "", at_most=3), "3 or less", [3, -9], [4]),
        (Key("a", "", choices=("a", "b")), "one of a, b", ["a", "b"], ["c"]),
        (Key("a", "", choices=("a",)), "a", ["a"], ["b"]),
        (Key(1, ""), "", [-9], []),
    ],
)
def test_ranges_and_choices(key: Key, right: str, good: list, bad: list) -> None:
    assert key.right == right
    assert all(map(key.accepts, good)) and not any(map(key.accepts, bad))


def test_defaults_of_other_types_are_refused() -> None:
    for default in (None, [], [[1]], (1, 2), {"a": 1}):
        with pytest.raises(TypeError, match="the default of a key is a bool, int, float, text"):
            Key(default, "")
    with pytest.raises(TypeError, match="the default of a key per stage is a list, not 1"):
        Key(1, "", per_stage=True)


def test_every_key_has_a_meaning_and_every_number_a_range() -> None:
    without_range = set()
    for name, key in SCHEMA.items():
        assert key.meaning and "\n" not in key.meaning, name
        first = key.default[0] if isinstance(key.default, list) else key.default
        if type(first) in (int, float) and not key.right and not key.no_effect:
            without_range.add(name)
        if name != "DATASET.SIGMA":
            assert all(map(key.accepts, [first])), name
    assert not without_range


def test_conditions_name_keys_and_values_that_exist() -> None:
    for name, key in SCHEMA.items():
        if key.only_with:
            other, value = key.only_with
            default = SCHEMA[other].default
            assert type(value) is type(default[0] if isinstance(default, list) else default), name
    idle = dict(without_effect(defaults()))
    assert idle["TRAIN.LR_STEP"] == "only with TRAIN.LR_SCHEDULE step"
    assert idle["TRAIN.CHECKPOINT"] == "only with TRAIN.RESUME"
    assert idle["FP16.STATIC_LOSS_SCALE"] == "only with FP16.ENABLED"  # as the key it depends on
    assert idle["RANK"] == "the launcher gives it"
    assert "TRAIN.WARM_UP_EPOCH" not in idle


def test_the_listing_has_one_line_for_each_key() -> None:
    head, *lines = list_keys().splitlines()
    assert head.split() == ["key", "default", "type", "and", "values", "meaning"]
    assert [line.split()[0] for line in lines] == list(SCHEMA)
    (line,) = (line for line in lines if line.startswith("LOSS.PUSH_LOSS_FACTOR "))
    assert "[0.001]" in line and "list of number, per stage, 0 or more" in line
    (line,) = (line for line in lines if line.startswith("TRAIN.WD "))
    assert line.endswith("; only with TRAIN.OPTIMIZER sgd")
    (line,) = (line for line in lines if line.startswith("VERBOSE "))
    assert line.endswith("; no effect: the logging module decides")


def test_the_page_of_settings_is_the_listing() -> None:
    """After a change: python tools/dist_train.py --list-keys markdown > docs/settings.md"""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == list_keys(markdown=True)
