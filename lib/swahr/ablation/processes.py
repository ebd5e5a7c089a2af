"""Trains the runs that are missing and tests those that are trained, each in its own process."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

from swahr.ablation.plan import PlannedRun
from swahr.files import make_folder

logger = logging.getLogger("swahr")
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
TRAIN = (sys.executable, "-m", "swahr", "train")
TEST = (sys.executable, "-m", "swahr", "val")


def make_slots(parallel: int, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """The environment of each process that trains at the same time.

    parallel: their number; 0 means one for each GPU, or one on the CPU. gpus: names of the GPUs, as
    CUDA_VISIBLE_DEVICES takes them; processes take them in turn. Without GPUs, processes share the
    cores.
    """
    count = parallel or max(len(gpus), 1)
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(count)]
    if count == 1:
        return [{}]
    return [{"OMP_NUM_THREADS": str(max(cores // count, 1))}] * count


class RunProcesses:
    """Trains runs at the same time, one for each slot; runs that are trained already are tested.

    slots: see make_slots. modules: of --import. train_command, test_command: what trains and what
    tests, before its arguments.
    """

    def __init__(
        self,
        slots: Sequence[Mapping[str, str]],
        modules: Sequence[str] = (),
        train_command: Sequence[str] = TRAIN,
        test_command: Sequence[str] = TEST,
    ) -> None:
        self.modules = tuple(modules)
        self.train_command = tuple(train_command)
        self.test_command = tuple(test_command)
        self._slots: queue.Queue[Mapping[str, str]] = queue.Queue()
        for slot in slots:
            self._slots.put(slot)
        self._count = len(slots)
        self._lock = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, runs: Sequence[PlannedRun]) -> dict[str, str]:
        """Train or test the runs; returns {name: why} for those that failed, which stop no other.

        What a run prints is in train_output.txt or test_output.txt of its folder. KeyboardInterrupt
        stops all runs, after they have saved their checkpoints.
        """
        problems: dict[str, str] = {}
        with ThreadPoolExecutor(self._count) as pool:
            futures = {pool.submit(self._run_one, run): run for run in runs}
            try:
                for future in as_completed(futures):
                    run = futures[future]
                    problem = future.result()
                    if problem:
                        problems[run.name] = problem
                        logger.error("%s failed: %s", run.name, problem)
                    else:
                        logger.info("%s: done", run.name)
            except BaseException:
                self._stop()
                raise
        return problems

    def _run_one(self, run: PlannedRun) -> str:
        """Train or test a run; returns why it failed, or ''."""
        slot = self._slots.get()
        try:
            is_trained = run.is_trained()
            log = make_folder(run.folder) / f"{'test' if is_trained else 'train'}_output.txt"
            with open(log, "wb") as file:
                process = self._start(run, is_trained, slot, file)
                if process is None:
                    return "stopped before it began"
                status = process.wait()
            with self._lock:
                self._live.discard(process)
            return "" if status == 0 else _problem(status, log)
        except OSError as error:
            return str(error)
        finally:
            self._slots.put(slot)

    def _start(
        self, run: PlannedRun, is_trained: bool, slot: Mapping[str, str], file: BinaryIO
    ) -> subprocess.Popen[bytes] | None:
        imports = [part for module in self.modules for part in ("--import", module)]
        arguments = ["--cfg", str(run.file), *imports, *run.opts]
        command = [*self.train_command, *arguments]
        if is_trained:
            command = [*self.test_command, *arguments, "TEST.MODEL_FILE", str(run.weights)]
        path = os.pathsep.join([str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])
        with self._lock:
            if self._stopped:
                return None
            doing = "testing" if is_trained else "training"
            logger.info("%s: %s; %s", run.name, doing, run.folder)
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path, **slot},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it once, through _stop
            )
            self._live.add(process)
            return process

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._live:
                process.send_signal(signal.SIGTERM)


def _problem(status: int, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return f"exit status {status}: {last} ({log})"
