"""Whatever is typed into a YAML file: a valid configuration or a ConfigError, never anything
else.
"""

from __future__ import annotations

import random
from pathlib import Path

from swahr.config import ConfigError, load_config

ROOT = Path(__file__).resolve().parents[2]
SCALARS = (
    "",
    "null",
    "true",
    "-1",
    "0",
    "3.5",
    "1e-3",
    ".nan",
    "1e999",
    "text",
    "''",
    "[1, 2]",
    "[]",
    "[true, x]",
    "{a: 1}",
    "(0,",
    "(True, False)",
    "&a [*a]",
    "*b",
    "!!python/object:os.system x",
    "2024-99-99",
    "0b_",
    "[",
    "'unclosed",
    "\t",
    "\x07",
    "é\U0001f600",
    "9" * 400,
    "<<: {a: 1}",
    "_BASE_: fuzz.yaml",
    "? [x]",
    "---",
    "=",
    "2024-01-01",
    "1:30",
    "0x",
    "[[[]]]",
)
EXPERIMENTS = ROOT / "experiments/coco/higher_hrnet"


def edit(lines: list[str], dice: random.Random) -> None:
    """Delete, repeat, move, indent, cut or rewrite a line."""
    place = dice.randrange(len(lines))
    kind = dice.randrange(8)
    line = lines[place]
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(dice.randrange(len(lines)), line)
    elif kind == 2:
        lines[place] = " " * dice.randrange(4) + line
    elif kind == 3:
        lines[place] = line[dice.randrange(1, 4) :]
    elif kind == 4:
        lines[place] = line[: dice.randrange(len(line) + 1)]
    elif kind == 5:
        lines[place] = dice.choice(SCALARS)
    else:
        lines[place] = f"{line.split(':')[0]}: {dice.choice(SCALARS)}"


def test_no_edit_ends_in_a_traceback(tmp_path: Path) -> None:
    main = (EXPERIMENTS / "w32_512_adam_lr1e-3.yaml").read_text().splitlines()
    variant = (EXPERIMENTS / "w32_512_adam_lr1e-3_hrnet_bottomup.yaml").read_text().splitlines()
    variant = ["_BASE_: base.yaml" if line.startswith("_BASE_") else line for line in variant]
    (tmp_path / "base.yaml").write_text("\n".join(main))
    path = tmp_path / "fuzz.yaml"
    valid = 0
    refused = 0
    for seed in range(500):
        dice = random.Random(seed)
        lines = list(dice.choice((main, variant)))
        for _ in range(dice.randrange(1, 4)):
            edit(lines, dice)
        path.write_text("\n".join(lines), encoding="utf-8")
        try:
            load_config(path).freeze()
            valid += 1
        except ConfigError as error:
            assert error.problems and all(
                problem and problem.isprintable() for problem in error.problems
            ), seed
            refused += 1
    assert valid > 20 and refused > 200
