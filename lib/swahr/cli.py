"""The command `swahr`: `swahr train --cfg FILE` does what `python tools/dist_train.py --cfg FILE`
does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from swahr import __version__
from swahr.config.paths import REPOSITORY


class CommandError(ValueError):
    """A command that does not exist, or cannot work here; the message is one line."""


# Name -> the function below swahr.commands, and what it does. Functions read sys.argv.
COMMANDS = {
    "train": ("train.main", "train a network"),
    "val": ("val.main", "find the people of a data set and score them"),
    "predict": ("predict.main", "find people in images or in a video"),
    "report": ("report.main", "one HTML file about results: figures, errors, worst images"),
    "check": ("check.run", "say what is wrong with a data set"),
    "score": ("score.main", "score a results file"),
    "export": ("export.main", "write a network as an ONNX file, checked against PyTorch"),
    "info": ("info.main", "say what a file of weights is"),
    "publish": ("publish.main", "write a network as a folder that describes itself"),
    "ablation": (
        "ablation.main",
        "train several configurations with several seeds and compare them",
    ),
    "synthetic": ("synthetic.main", "make synthetic people"),
    "benchmark": ("", "time each part against a plain version (in a clone)"),
    "flops": ("flops.main", "parameters and GMACs of a configured network"),
    "dlc": ("dlc.main", "labelled frames of DeepLabCut to COCO's format"),
    "lsp": ("lsp.main", "Leeds Sports Pose Extended to COCO's format"),
    "crowdpose": ("crowdpose.main", "join CrowdPose's train and val annotations"),
}


def main() -> NoReturn:
    """The command of sys.argv; ends the program with its exit status."""
    try:
        from swahr.distributed.launch import main_with_exit_status  # PyTorch, for some seconds
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(130)
    main_with_exit_status(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> None:
    """Run a command, given by its name and its arguments.

    Raises CommandError for an unknown one, SystemExit with the exit status if that is not 0, and
    what the command raises.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        return print(usage())
    if name == "--version":
        return print(f"swahr {__version__}")
    if name not in COMMANDS:
        raise CommandError(f"swahr {name}: no such command; it is one of {', '.join(COMMANDS)}")
    sys.argv = [f"swahr {name}", *rest]
    status = _function(name)()
    if status:
        sys.exit(status)


def usage() -> str:
    """The text of `swahr --help`."""
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    head = ["usage: swahr COMMAND ...", "", "`swahr COMMAND --help` explains a command.", ""]
    return "\n".join([*head, *lines])


def _function(name: str) -> Any:
    """The function of a command. Raises CommandError for the benchmark outside a clone."""
    if name != "benchmark":
        module, function = COMMANDS[name][0].split(".")
        return getattr(import_module(f"swahr.commands.{module}"), function)
    tools = REPOSITORY / "tools"
    if not (tools / "benchmark.py").is_file():
        raise CommandError(
            "swahr benchmark: needs a clone of the repository, whose folders benchmarks/ and "
            "tests/ it measures with; an installed package has neither"
        )
    sys.path.insert(0, str(tools))
    return import_module("benchmark").main
