"""Parts by name, and modules of a user."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from swahr.parts import PartError, choose, import_modules, unknown_part, with_modules


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, which is not on the search path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "toy_parts_module", raising=False)
    (tmp_path / "toy_parts_module.py").write_text("VALUE = 3\n")
    return "toy_parts_module"


def test_parts_are_chosen_by_name() -> None:
    assert choose({"a": 1, "b": 2}, "b", "MODEL.BACKBONE") == 2
    text = "^MODEL.BACKBONE is 'x'; it is one of a, b; a module of your own is named with --import$"
    with pytest.raises(PartError, match=text):
        choose({"a": 1, "b": 2}, "x", "MODEL.BACKBONE")
    with pytest.raises(ValueError, match=text):
        unknown_part("MODEL.BACKBONE", "x", ["a", "b"])


def test_modules_of_the_current_folder_are_found(module: str) -> None:
    import_modules([module])
    assert sys.modules[module].VALUE == 3  # type: ignore[attr-defined]


def test_a_function_for_other_processes_imports_first(module: str) -> None:
    assert with_modules(len, []) is len
    function = pickle.loads(pickle.dumps(with_modules(len, [module])))
    assert module not in sys.modules
    assert function("abc") == 3 and module in sys.modules


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("my_loss.py", "--import my_loss$"),
        ("src/my_loss.py", "--import my_loss, and start in src or add it to PYTHONPATH$"),
        ("./my_loss.py", "--import my_loss$"),
        ("src/my_loss", "--import my_loss, and start in src or add it to PYTHONPATH$"),
    ],
)
def test_a_path_in_place_of_a_module_says_its_name(given: str, right: str) -> None:
    with pytest.raises(PartError, match=f"^--import {given}: give the module's name: {right}"):
        import_modules([given])


@pytest.mark.parametrize("given", ["a,b.c", "a, b.c", "a.py,b.c"])
def test_several_modules_in_one_flag_say_that_it_is_repeated(given: str) -> None:
    first = given.split(",")[0]
    line = f"^--import {given}: repeat the flag for each module: --import {first} --import b.c$"
    with pytest.raises(PartError, match=line):
        import_modules([given])


def test_modules_that_are_missing_or_wrong_are_named_in_one_line(module: str) -> None:
    with pytest.raises(PartError, match="^--import no_such_module: ModuleNotFoundError: No module"):
        import_modules(["no_such_module"])
    path = Path(f"{module}.py").resolve()
    for text, line in (
        ("\nimport no_such_module", rf"No module named 'no_such_module' \({path}:2\)"),
        ("def f():\n    1 / 0\nf()", rf"ZeroDivisionError: division by zero \({path}:2\)"),
        ("raise SystemExit('stop\\nhere')", rf"SystemExit: stop here \({path}:1\)"),
        ("def", f'File "{path}", line 1 def'),
    ):
        path.write_text(text)
        with pytest.raises(PartError, match=line) as caught:
            import_modules([module])
        assert str(caught.value).startswith(f"--import {module}: ")
        assert "\n" not in str(caught.value)
