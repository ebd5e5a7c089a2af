"""The flags that the tools share, and the configuration that they ask for."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from yacs.config import CfgNode

from swahr.config import (
    SCHEMA,
    ConfigError,
    Problem,
    check_pairs,
    list_keys,
    load_config,
    raise_problems,
)
from swahr.distributed import comm
from swahr.exported import is_exported
from swahr.parts import import_modules
from swahr.words import counted

LIKE_A_KEY = 0.75  # from this likeness to a key, of 0 to 1, a word is meant as one


class Parser(argparse.ArgumentParser):
    """A parser that shows the description as it is, and takes -1e-3 for a number, not for a flag.

    argparse itself knows no negative numbers with an exponent. A flag is written out: the first
    letters of its name are not taken for it.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, allow_abbrev=False, **options)
        self._negative_number_matcher = re.compile(
            r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE
        )


def config_parser(
    description: str | None, instead: str = "", takes_sources: bool = False
) -> argparse.ArgumentParser:
    """A parser with the flags of every tool that loads a configuration: --cfg, --import, ...

    instead: what may be given in place of --cfg. takes_sources: whether words without a flag are
    sources too, and not settings alone.
    """
    parser = Parser(description)
    add_flag(
        parser,
        "--cfg",
        type=not_empty,
        metavar="FILE",
        help="YAML file of the experiment" + (f"; or {instead}" if instead else ""),
    )
    _add_early_flags(parser)
    parser.add_argument(
        "--print-config", action="store_true", help="print the merged configuration and exit"
    )
    about_words = "the source, see above, and " if takes_sources else ""
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="SOURCE | KEY VALUE" if takes_sources else "KEY VALUE",
        help=f"{about_words}settings that replace those of the file; also KEY=VALUE",
    )
    return parser


def run_parser(
    description: str | None, *processes: str, instead: str = "", takes_sources: bool = False
) -> argparse.ArgumentParser:
    """A parser with the flags of the tools that run a network.

    processes: the tool's flags for the number of processes. instead, takes_sources: see
    config_parser.
    """
    parser = config_parser(description, instead, takes_sources)
    add_flag(
        parser,
        *processes,
        dest="processes",
        type=int,
        metavar="N",
        help="processes on this node (default: one for each visible GPU)",
    )
    add_flag(parser, "--gpu", type=int, metavar="I", help="use only this GPU")
    add_flag(
        parser,
        "--device",
        choices=("cpu", "cuda"),
        help="default: GPUs if there are any; see DEVICE",
    )
    add_flag(
        parser,
        "--name",
        type=not_empty,
        metavar="NAME",
        help="name of the run (default: that of the YAML file)",
    )
    return parser


def add_flag(parser: Any, *names: str, **options: Any) -> None:
    """Add a flag with a value, under each name with hyphens and with underscores.

    Two different values, under one name or two, are an error. parser: a parser or group of flags.
    """
    parser.add_argument(*spellings(*names), action=_Once, **options)


def finite_number(text: str) -> float:
    """The value of a flag; argparse.ArgumentTypeError for text that is no number, nan and inf."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return number


def named_folder(text: str) -> str:
    """The value of a flag; argparse.ArgumentTypeError for empty text, which would mean the current
    folder.
    """
    return _not_empty(text, "name a folder")


def not_empty(text: str) -> str:
    """The value of a flag that takes a file or a name; argparse.ArgumentTypeError for empty text,
    which would count as no flag at all.
    """
    return _not_empty(text, "give a value")


def _not_empty(text: str, remedy: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"it is empty; {remedy}")
    return text


def spellings(*names: str) -> list[str]:
    """Each name of a flag, such as --dist-url, with hyphens and with underscores."""
    both = (
        (name, "--" + name[2:].replace("_", "-"), "--" + name[2:].replace("-", "_"))
        for name in names
    )
    return list(dict.fromkeys(spelling for group in both for spelling in group))


class _Once(argparse.Action):
    """Stores a value; ConfigError if another one was given before."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given: dict[str, str] = getattr(namespace, "given_flags", {})
        before = getattr(namespace, self.dest)
        if self.dest in given and before != values:
            _refuse(f"{given[self.dest]} {_words(before)}", f"{option_string} {_words(values)}")
        namespace.given_flags = given | {self.dest: str(option_string)}
        setattr(namespace, self.dest, values)


def _words(values: Any) -> str:
    """The value of a flag, or its several ones, as they are given."""
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)


def add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    """--out and --copy, which converters.coco.write_dataset takes."""
    add_flag(
        parser,
        "--out",
        type=named_folder,
        required=True,
        metavar="ROOT",
        help="folder of the new data set",
    )
    parser.add_argument("--copy", action="store_true", help="copy the images, do not link them")


def add_import_flag(parser: argparse.ArgumentParser) -> None:
    """--import, whose names parts.import_modules takes."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module of your own, imported first; may be repeated",
    )


def add_weights_flag(parser: argparse.ArgumentParser) -> None:
    """--weights, which model_files.find_model takes."""
    add_flag(
        parser,
        "--weights",
        type=not_empty,
        metavar="PATH",
        help="the folder of a run or of `swahr publish`, or a file of weights, whose network is "
        "told from it; with --cfg a file in place of TEST.MODEL_FILE",
    )


def _add_early_flags(parser: argparse.ArgumentParser) -> None:
    add_import_flag(parser)
    parser.add_argument(
        "--list-keys",
        nargs="?",
        const="text",
        choices=("text", "markdown"),
        help="print the table of all settings and exit",
    )


def parse_flags(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
    *,
    takes_models: bool = False,
) -> argparse.Namespace:
    """The parsed flags, after the modules of --import are imported; --list-keys ends the program.

    arguments: those of the command line if None. takes_models: whether the command works without
    --cfg where an exported network, or the flag --weights if it has that, tells the settings;
    otherwise --cfg must name the YAML file of an experiment. Raises ConfigError for flags that
    contradict each other, PartError for a module that cannot be imported.
    """
    early = Parser(add_help=False)
    _add_early_flags(early)
    args, _ = early.parse_known_args(arguments)
    import_modules(args.modules)
    if args.list_keys:
        print(list_keys(markdown=args.list_keys == "markdown"), end="")
        sys.exit(0)
    args = parser.parse_intermixed_args(arguments)
    if takes_models:
        args.cfg = args.cfg or _exported_file([*args.opts, *getattr(args, "img", [])])
    elif args.cfg and is_exported(args.cfg):
        parser.error(
            f"--cfg {args.cfg}: is an exported network; give the YAML file of its training"
        )
    if not args.cfg and not getattr(args, "weights", None):
        parser.error(_what_is_missing(args))
    _check_flags(args)
    return args


def _what_is_missing(args: argparse.Namespace) -> str:
    if not hasattr(args, "weights"):
        return "give --cfg, the YAML file of an experiment"
    return "give --weights (a run's folder or a file of weights), or --cfg"


def _exported_file(words: Sequence[str]) -> str | None:
    """The exported network that the settings name as TEST.MODEL_FILE; None if they name none."""
    start = "TEST.MODEL_FILE="
    pairs = [f"{key}={value}" for key, value in zip(words, words[1:])]
    named = [word.removeprefix(start) for word in (*words, *pairs) if word.startswith(start)]
    return next((path for path in named if is_exported(path)), None)


def check_no_key(word: str) -> None:
    """Raise ConfigError, with the key that is meant, for a word that would be taken for a file and
    is a setting with a slip in its key.
    """
    key = word.partition("=")[0]
    if "." not in key or os.path.exists(word):
        return
    nearest = get_close_matches(key.upper(), SCHEMA, 1, LIKE_A_KEY)
    if nearest:
        text = f"{key}: there is no such file, and no such setting; the nearest is {nearest[0]}"
        raise ConfigError([text])


def _check_flags(args: argparse.Namespace) -> None:
    """Raise ConfigError for flags that contradict each other, the settings or the launcher."""
    given = getattr(args, "given_flags", {})
    keys = {str(item).partition("=")[0] for item in args.opts}
    if "gpu" in given and "processes" in given and args.processes != 1:
        _refuse(f"--gpu {args.gpu}", f"{given['processes']} {args.processes}")
    if "gpu" in given and "device" in given and args.device != "cuda":
        _refuse(f"--gpu {args.gpu}", f"--device {args.device}")
    for flag, key in (("gpu", "DEVICE"), ("device", "DEVICE"), ("name", "RUN_NAME")):
        if flag in given and key in keys:
            _refuse(f"--{flag} {getattr(args, flag)}", f"the setting {key}")
    if args.modules and "REQUIRES" in keys:
        _refuse(f"--import {args.modules[0]}", "the setting REQUIRES")
    nodes = getattr(args, "world_size", 1)
    if "rank" in given and args.rank and "world_size" not in given and not comm.launched():
        raise ConfigError([f"--rank {args.rank}: needs --world-size, the number of nodes"])
    if "rank" in given and not comm.launched() and not 0 <= args.rank < nodes:
        _refuse(f"--rank {args.rank}", f"--world-size {nodes}")
    if comm.launched():
        here = comm.local_world_size()
        if "processes" in given and args.processes != here:
            launched = counted(here, "process", "processes")
            _refuse(f"{given['processes']} {args.processes}", f"the launcher's {launched}")
        launched_nodes = os.environ.get("GROUP_WORLD_SIZE", str(nodes))
        if "world_size" in given and str(nodes) != launched_nodes:
            launched = counted(int(launched_nodes), "node")
            _refuse(f"--world-size {nodes}", f"the launcher's {launched}")


def _refuse(first: str, second: str) -> None:
    raise ConfigError([f"{first} contradicts {second}; give one of them"])


def load_run_config(args: argparse.Namespace) -> CfgNode:
    """The configuration of the flags and settings; --print-config prints it and ends the program.

    REQUIRES of the result names the modules of --import, so that a saved configuration says what it
    needs. Raises ConfigError, also for one GPU (DEVICE cuda:N) that several processes would share.
    """
    return check_run_config(args, load_config(args.cfg, run_settings(args)))


def run_settings(args: argparse.Namespace) -> list[Any]:
    """The settings of the command line, after those that flags stand for: a key without a value
    at the end then takes no flag's setting for it. `_check_flags` refuses a flag beside its key.
    """
    check_pairs(args.opts)
    opts: list[Any] = []
    if getattr(args, "gpu", None) is not None:
        opts.append(f"DEVICE=cuda:{args.gpu}")
    elif getattr(args, "device", None):
        opts.append(f"DEVICE={args.device}")
    if getattr(args, "name", None):
        opts.append(f"RUN_NAME={args.name}")
    if args.modules:
        opts += ["REQUIRES", args.modules]
    return [*opts, *args.opts]


def check_run_config(args: argparse.Namespace, cfg: CfgNode) -> CfgNode:
    """The configuration itself, see load_run_config."""
    if args.print_config:
        print(cfg.dump(), end="")
        sys.exit(0)
    if ":" in cfg.DEVICE and comm.local_world_size() > 1:
        text = (
            f"is {cfg.DEVICE}; the launcher started {comm.local_world_size()} processes here, "
            "which cannot share one GPU; DEVICE cuda gives each its own"
        )
        raise_problems(cfg, [Problem(("DEVICE",), text)])
    return cfg
