"""Imports point down only (docs/architecture.md), and nothing from outside is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lib" / "swahr"
BASE = {
    "skeleton",
    "exported",
    "geometry",
    "files",
    "jit",
    "allocator",
    "parts",
    "distributed",
    "progress_bar",
    "words",
}
# What each part of the package may import, itself aside. Tools may import anything.
ALLOWED: dict[str, set[str]] = {
    "exported": {"files"},
    "skeleton": {"exported", "files", "words"},
    "geometry": set(),
    "files": set(),
    "words": set(),
    "jit": set(),
    "parts": set(),
    "allocator": set(),
    "distributed": {"allocator"},
    "progress_bar": {"distributed"},
    "visualize": BASE,
    "config": BASE,
    "models": BASE,
    "codec": BASE | {"models"},
    "losses": BASE | {"models", "codec"},
    "data": BASE | {"models", "codec"},
    "synthetic": BASE,
    "evaluation": BASE | {"models", "codec"},
    "report": BASE | {"evaluation", "data", "visualize"},
    "converters": BASE | {"data"},
    "acceleration": BASE | {"models"},
    "inference": BASE | {"models", "codec", "data", "acceleration"},
    "export": BASE | {"models", "codec", "data", "acceleration", "inference"},
    "engine": BASE
    | {"models", "codec", "losses", "data", "evaluation", "acceleration", "inference", "config"}
    | {"visualize"},
    "ablation": BASE | {"data", "evaluation", "models", "inference", "config", "engine", "report"},
    "results": BASE | {"visualize", "data", "inference", "engine"},
    "api": BASE | {"models", "data", "inference", "engine", "config", "results"},
    "cli": BASE | {"config"},
    "__main__": {"cli"},
}
ALLOWED["commands"] = set(ALLOWED) - {"cli", "__main__"}
FORBIDDEN = ("eval", "exec", "pickle.load", "pickle.loads", "yaml.unsafe_load")
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [
    *MODULES,
    *sorted((ROOT / "tools").glob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
]


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute dotted names of everything a file imports, relative imports resolved, type-checking
    imports included.
    """
    here = path.relative_to(ROOT / "lib").with_suffix("").parts if PACKAGE in path.parents else ()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part == "__init__":
        return
    used = {
        name.split(".")[1] for name in imported_modules(path) if name.startswith("swahr.")
    } & set(ALLOWED)
    assert used <= ALLOWED[part] | {part}, (
        f"{path.name} in {part} imports {sorted(used - ALLOWED[part] - {part})}"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_executed(path: Path) -> None:
    """No eval, no exec, no pickle, and every torch.load reads weights only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in FORBIDDEN, f"{path}:{node.lineno}: {name}"
        if name == "torch.load":
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("weights_only") == "True", (
                f"{path}:{node.lineno}: torch.load without weights_only=True"
            )


def test_torchvision_stays_optional() -> None:
    """torchvision is imported inside functions only, so that a CPU-only torch works without it."""
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            names = [
                alias.name for alias in getattr(node, "names", ()) if isinstance(node, ast.Import)
            ]
            names += [getattr(node, "module", None) or ""]
            assert not any(name.startswith("torchvision") for name in names), path
