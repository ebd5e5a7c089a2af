from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_faults_names_tests_that_are_there() -> None:
    named = re.findall(
        r"`([\w/]*test_\w+\.py)(?:::(\w+))?`", (ROOT / "docs/reliability.md").read_text()
    )
    assert len(named) > 50
    for file, test in named:
        source = (ROOT / "tests" / file).read_text()
        assert not test or f"\ndef {test}(" in source, f"{file}::{test}"
