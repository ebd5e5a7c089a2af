"""Every recipe of docs/extending.md, from outside the package: trained, resumed and validated."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from swahr.codec.decode import DECODERS
from swahr.config.schema import SCHEMA
from swahr.data.transforms import TRANSFORMS
from swahr.distributed.launch import main_with_exit_status
from swahr.engine.hooks import HOOKS
from swahr.engine.schedule import OPTIMIZERS, SCHEDULES
from swahr.evaluation.metrics import LOWER_IS_BETTER, METRICS
from swahr.losses.criterion import LOSSES
from swahr.models.build import BACKBONES, HEADS
from tests.engine.conftest import config_file, images, write_config  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PARTS: tuple[dict[str, Any], ...] = (
    BACKBONES,
    DECODERS,
    HEADS,
    HOOKS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    SCHEMA,
    TRANSFORMS,
)
RECIPE = re.compile(
    r"```python\n# (?P<name>\w+)\.py\n(?P<code>.*?)```(?P<after>.*?)(?=\n## |\Z)", re.S
)


def recipes() -> dict[str, tuple[str, list[str]]]:
    """Module name -> its code, and the settings that stand below it."""
    found = {}
    for match in RECIPE.finditer((ROOT / "docs/extending.md").read_text(encoding="utf-8")):
        settings = re.search(r"^    (.*)$", match["after"], re.M)
        assert settings, f"{match['name']} has no settings below it"
        found[match["name"]] = (match["code"], shlex.split(settings[1]))
    return found


RECIPES = recipes()


@pytest.fixture(autouse=True)
def plain_parts() -> Iterator[None]:
    """The dictionaries as they were, so that no other test sees a recipe's entries."""
    before = [dict(parts) for parts in PARTS]
    lower_is_better = set(LOWER_IS_BETTER)
    yield
    LOWER_IS_BETTER.intersection_update(lower_is_better)
    for parts, entries in zip(PARTS, before):
        parts.clear()
        parts.update(entries)


@pytest.fixture
def tool(
    config_file: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    """tool(name of the tool, module, *settings) -> exit status."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(tmp_path)

    def run(name: str, module: str, *settings: str) -> int:
        flags = ["--import", module, "--cfg", str(config_file), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", [name, *flags, *settings])
        with pytest.raises(SystemExit) as end:
            main_with_exit_status(importlib.import_module(name).main)
        return int(end.value.code or 0)

    return run


def write_module(folder: Path, name: str) -> str:
    """The module's file, under a name of this test's own; the name."""
    own = f"{name}_{folder.name}"
    (folder / f"{own}.py").write_text(RECIPES[name][0], encoding="utf-8")
    return own


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_resumes_and_validates(
    name: str, tool: Callable[..., int], tmp_path: Path
) -> None:
    module = write_module(tmp_path, name)
    settings = RECIPES[name][1]
    assert tool("dist_train", module, *settings, "TRAIN.END_EPOCH", "1") == 0
    [checkpoint] = tmp_path.rglob("checkpoint.pth.tar")
    first = torch.load(checkpoint, weights_only=True)
    assert first["progress"]["epoch"] == 1
    assert (
        tool("dist_train", module, *settings, "TRAIN.END_EPOCH", "2", "RESUME_CHANGED", "True") == 0
    )
    second = torch.load(checkpoint, weights_only=True)
    assert second["progress"]["epoch"] == 2
    moved = [
        key
        for key, value in first["state_dict"].items()
        if not value.equal(second["state_dict"][key])
    ]
    assert moved
    assert tool("dist_valid", module, *settings) == 0
    assert list(tmp_path.rglob("keypoints_val2017_results*.json"))


def test_the_table_has_every_recipe() -> None:
    assert len(RECIPES) == 8
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(#([\w-]+)\)", text):
        assert re.search(rf"^## {link.replace('-', ' ')}$", text, re.M | re.I), link


def test_a_configuration_that_requires_a_module_says_which_import_is_missing(
    config_file: Path,  # noqa: F811
    tool: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = write_module(tmp_path, "my_transform")
    config = yaml.safe_load(config_file.read_text())
    config["REQUIRES"] = ["some_other_module"]
    config_file.write_text(yaml.safe_dump(config))
    assert tool("dist_train", module) == 2
    assert "--import some_other_module" in capsys.readouterr().err
