"""The entry point of each training process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from swahr.config import log_dir, output_dir
from swahr.distributed import comm
from swahr.distributed.signals import StopRequest
from swahr.engine.progress import setup_logging
from swahr.engine.run_folder import keep_config, run_lock
from swahr.engine.setup import build_trainer
from swahr.engine.validate import Validation


def train(
    cfg: Any,
    cfg_path: str | os.PathLike[str],
    validate: Callable[..., dict[str, float]] | None = None,
) -> None:
    """Train as the configuration says; every process calls it.

    With AUTO_RESUME, training resumes from the run's last checkpoint. cfg_path: the YAML file,
    whose name names the run. validate: function(cfg, model, *, folder, dataset) -> figures by name;
    by default that of engine.validate.
    Raises RunInUseError if the run is live already, RefusedResume if its checkpoint was written
    with other settings, and Interrupted after a signal, once a checkpoint is written.
    """
    device = comm.select_device(cfg.DEVICE)
    folder = output_dir(cfg, cfg_path)
    logs = log_dir(cfg, cfg_path)
    # Only rank 0 locks the folder, once the group says who that is.
    with (
        comm.process_group(device, cfg.DIST_BACKEND, cfg.DIST_TIMEOUT),
        StopRequest() as stop,
        run_lock(folder) if comm.is_main() else nullcontext(),
    ):
        setup_logging(folder / "train.log")
        trainer = build_trainer(cfg, folder, logs, device, stop, validate or Validation())
        if comm.is_main():
            keep_config(folder, trainer.identity.config, trainer.identity.skeleton)
        trainer.train()
        trainer.finish()
