"""Which runs a comparison consists of, where each of them is, and which are still to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swahr.config import defaults, load_config, output_dir, resolve_path
from swahr.config.schema import lookup
from swahr.engine import checkpoint
from swahr.engine.provenance import (
    IN_TRAINING,
    describe_test_of_split,
    figures_path,
    read_figures,
    results_name,
    sha256,
)
from swahr.engine.run_folder import changed_settings, changes_what_is_learnt

BASE = "base.yaml"  # a folder's file that the others build upon; it is not compared itself
BEGUN = (checkpoint.FINAL, checkpoint.NEWEST, checkpoint.PREVIOUS)  # a run with one has learnt
OWN_KEYS = ("TRAIN.SEED", "RUN_NAME", "AUTO_RESUME")  # the settings that tell runs apart
# The page names these files, so a run that was made with others is refused.
FILE_KEYS = ("DATASET.ROOT", "DATASET.DATA_FORMAT", "MODEL.PRETRAINED")
# The settings that choose the images that networks are tested on.
TEST_SET_KEYS = (
    "DATASET.ROOT",
    "DATASET.DATASET_TEST",
    "DATASET.TEST",
    "DATASET.SKELETON",
    "DATASET.CATEGORIES",
)


class AblationError(ValueError):
    """A comparison that cannot be made; the message is one line that says why."""


@dataclass(frozen=True)
class PlannedRun:
    """One configuration with one seed.

    label: name of the configuration. file: its YAML file. opts: KEY VALUE pairs on top of it. cfg:
    the whole configuration. folder: of the run.
    """

    label: str
    seed: int
    file: Path
    opts: tuple[str, ...]
    cfg: Any
    folder: Path

    @property
    def name(self) -> str:
        """The run's name, RUN_NAME."""
        return str(self.cfg.RUN_NAME)

    @property
    def weights(self) -> Path:
        """The weights at the end of training."""
        return self.folder / checkpoint.FINAL

    @property
    def results(self) -> Path:
        """The result records of the test."""
        return self.folder / "results" / f"{results_name(self.cfg)}.json"

    @property
    def curves(self) -> Path:
        """The table with the losses of each epoch."""
        return self.folder / checkpoint.RESULTS

    def is_trained(self) -> bool:
        """Whether the weights that are tested exist."""
        return self.weights.is_file()

    def is_tested(self) -> bool:
        """Whether the results are those of the weights at the end, with the settings of the test.

        Raises CheckpointError for files that cannot be read.
        """
        figures = figures_path(self.results)
        if not (self.results.is_file() and figures.is_file()):
            return False
        told = read_figures(figures)
        if told.test != describe_test_of_split(self.cfg):
            return False
        return told.weights == IN_TRAINING or told.are_of(sha256(self.weights))

    def is_done(self) -> bool:
        """Whether it is trained and tested."""
        return self.is_trained() and self.is_tested()


def find_files(given: Sequence[str | Path]) -> dict[str, Path]:
    """{label: YAML file} of files, and of folders, whose files but BASE are taken by name. Raises
    AblationError where there are none, or two of one name.
    """
    files: dict[str, Path] = {}
    for path in map(resolve_path, given):
        inside = [path]
        if path.is_dir():
            inside = [file for file in sorted(path.glob("*.yaml")) if file.name != BASE]
        if not inside:
            raise AblationError(f"{path}: no YAML files in this folder, {BASE} aside")
        for file in inside:
            if file.stem in files:
                raise AblationError(f"{file}: {files[file.stem]} has the same name")
            files[file.stem] = file
    return files


def plan_runs(
    files: dict[str, Path], seeds: int, opts: Sequence[str] = ()
) -> dict[str, list[PlannedRun]]:
    """{label: runs with the seeds 0 to seeds - 1}.

    A run is called <folder of the file>_<label>_seed<seed>. opts: settings, as KEY VALUE or
    KEY=VALUE, of all runs. Raises ConfigError for a configuration that cannot be loaded, and
    AblationError where opts set what tells runs apart, or where a trained run was made with other
    settings, or its settings cannot be read.
    """
    given = {str(item).partition("=")[0] for item in opts}
    for key in OWN_KEYS:
        if key in given:
            raise AblationError(f"{key}: it differs between the runs, so it cannot be set for all")
    planned: dict[str, list[PlannedRun]] = {}
    for label, file in files.items():
        planned[label] = [_plan_run(label, file, seed, opts) for seed in range(seeds)]
    _refuse_other_test_sets([runs[0] for runs in planned.values()])
    return planned


def _plan_run(label: str, file: Path, seed: int, opts: Sequence[str]) -> PlannedRun:
    name = f"{file.resolve().parent.name}_{label}_seed{seed}"
    own = ("TRAIN.SEED", str(seed), "RUN_NAME", name, "AUTO_RESUME", "True")
    all_opts = (*own, *map(str, opts))
    cfg = load_config(file, all_opts)
    run = PlannedRun(label, seed, file, all_opts, cfg, output_dir(cfg, file))
    if any((run.folder / name).is_file() for name in BEGUN):
        _refuse_other_settings(run)
    return run


def _refuse_other_test_sets(runs: Sequence[PlannedRun]) -> None:
    """Raise AblationError where two configurations are tested on other images."""
    first, *others = runs
    for run in others:
        for key in TEST_SET_KEYS:
            own = lookup(run.cfg, key)
            wanted = lookup(first.cfg, key)
            if own != wanted:
                raise AblationError(
                    f"{run.file}: {key} is {own}, and {wanted} in {first.file}; configurations are "
                    "compared on the same images"
                )


def _refuse_other_settings(run: PlannedRun) -> None:
    saved = run.folder / checkpoint.CONFIG
    if not saved.is_file():
        return
    try:
        before = saved.read_text(encoding="utf-8")
        changed = changed_settings(before, run.cfg.dump(), defaults().dump())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AblationError(
            f"{saved}: is no configuration of a run ({reason}); remove that folder, or give "
            "another OUTPUT_DIR"
        ) from None
    for key, (old, new) in changed.items():
        filled_in = key == "DATASET.OUTPUT_SIZE" and not new  # from the network, in training
        if (changes_what_is_learnt(key) or key in FILE_KEYS) and not filled_in:
            raise AblationError(
                f"{run.folder}: was made with {key} {old}, not {new}; remove that folder, or give "
                "another OUTPUT_DIR"
            )
