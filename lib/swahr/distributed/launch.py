"""Starts one process per GPU through torch's elastic launcher, and reports how a run failed.

If a rank dies, the launcher ends the others and prints the traceback of the failing rank last.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeGuard, TypeVar
from urllib.parse import urlsplit

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    get_error_handler,
    record,
)
from torch.distributed.elastic.rendezvous.api import RendezvousError, RendezvousTimeoutError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from swahr.distributed import comm
from swahr.distributed.place import LaunchError, check_place
from swahr.distributed.signals import Interrupted, mark_in, marks_in
from swahr.distributed.stdout import NO_READER, drop_stdout, flush_stdout, has_no_reader

logger = logging.getLogger("swahr")
T = TypeVar("T")

# Seconds that a rank waits after it lost another one, so that the failing rank is reported first.
LOST_PEER_GRACE = 5.0
# Seconds that a node waits for node 0 at most, and between two tries.
JOIN_SECONDS = 300.0
JOIN_INTERVAL = 1.0
FAILED = "failed"  # a file beside torch's error file: rank and exit status of the process
# Seconds that processes get to stop after a signal before they are killed; a PyTorch without
# LaunchConfig.shutdown_timeout knows no other number.
STOP_SECONDS = 30


class WorkerError(RuntimeError):
    """A launched process failed; the message is its one line, or ends with its traceback."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        self.exit_status = exit_status
        super().__init__(message)


class Killed(RuntimeError):
    """Processes did not stop in time after a signal and were killed; `exit_status` is 4."""

    exit_status = 4

    def __init__(self, number: int, seconds: float, ranks: list[int]) -> None:
        who = f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        super().__init__(
            f"{signal.Signals(number).name}: {who} killed after {seconds:g} s (STOP_SECONDS), "
            "nothing saved since the last checkpoint"
        )


def launch(
    function: Callable[..., T],
    args: tuple = (),
    processes: int = 1,
    *,
    nodes: int = 1,
    node_rank: int = 0,
    url: str = "",
    restarts: int = 0,
    stop_seconds: int = STOP_SECONDS,
) -> T | None:
    """Call function(*args) in `processes` processes on each of `nodes` nodes.

    Returns what rank 0 returned, None on nodes without it: torch numbers the processes by the
    addresses of their nodes, whatever --rank says. A process that a launcher (torchrun, srun)
    started joins its group, and one process on one node without restarts needs no launcher: both
    call the function directly. Otherwise function must be importable and args picklable.

    url: tcp://host:port of node 0, the same on all nodes. restarts: how often all
    processes are started again after a failure. stop_seconds: what processes get to stop after a
    signal before they are killed.
    Raises WorkerError, Interrupted (a signal, which is passed on to the processes), Killed,
    LaunchError.
    """
    check_place()
    if nodes < 1:
        raise LaunchError(f"--world-size {nodes}: it must be 1 or more")
    if restarts < 0:
        raise LaunchError(f"--restarts {restarts}: it must be 0 or more")
    if comm.launched():
        if restarts:
            raise LaunchError(
                f"--restarts {restarts}: another launcher started this process, and only that one "
                "can restart it (torchrun --max-restarts)"
            )
        return record(_call_and_report)(function, args)
    if processes == 1 and nodes == 1 and not restarts:
        return function(*args)
    _quieten()
    with tempfile.TemporaryDirectory(prefix="swahr_launch_") as folder:
        config = _launch_config(processes, nodes, node_rank, url, restarts, stop_seconds, folder)
        stop_seconds = getattr(config, "shutdown_timeout", STOP_SECONDS)
        # The launcher itself passes on SIGTERM, SIGINT, SIGHUP and SIGQUIT.
        signal.signal(signal.SIGUSR1, _pass_on)
        try:
            if nodes > 1:
                _wait_for_node_0(url, node_rank)
            return elastic_launch(config, _run_rank)(function, args, folder).get(0)
        except SignalException as stop:
            if failed := _failed_while_stopping(folder):
                raise failed from None
            if killed := marks_in(folder):
                raise Killed(stop.sigval, stop_seconds, killed) from None
            raise Interrupted(stop.sigval) from None
        except ChildFailedError as failure:
            rank, process = failure.get_first_failure()
            raise _worker_error(rank, process.message, process.exitcode) from None
        except (RendezvousError, DistError) as error:
            if _attempts(folder):  # the processes had met
                raise
            raise LaunchError(_why_not_met(config.rdzv_endpoint, error)) from None


def main_with_exit_status(main: Callable[[], Any]) -> NoReturn:
    """Run a tool's main function and exit: 0 if it returns, else with `exit_status`.

    Known errors and Ctrl-C print their one line, unknown errors their traceback. Where the reader
    of stdout has gone, as in `swahr info demo | head -1`, nothing is said.
    """
    try:
        _main_or_interrupted(main)
    except (Exception, Interrupted) as error:
        status = exit_status(error)
        drop_stdout()
        if is_known(error):
            print(f"{_rank_prefix()}{_line(error)}", file=sys.stderr)
        elif status == NO_READER:
            pass
        elif comm.has_group():
            traceback.print_exc()
        else:
            raise
        _leave(status)
    _leave(0)


def _main_or_interrupted(main: Callable[[], Any]) -> None:
    """Ctrl-C in what does not watch signals itself ends it like the other signals do. Errors of
    stdout come up here, and not when the interpreter shuts down.
    """
    try:
        main()
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT) from None
    except SystemExit:  # of --help, for instance
        flush_stdout()
        raise
    flush_stdout()


def is_known(error: BaseException) -> bool:
    """Whether its message needs no traceback: one of this project's own errors, or one of the
    system about a file that this project used, such as a folder that this user may not enter.
    """
    return _is_own(type(error).__module__) or _names_a_file(error)


def _is_own(module: str) -> bool:
    return module.split(".")[0] == __name__.split(".")[0]


def _names_a_file(error: BaseException) -> TypeGuard[OSError]:
    """Whether a function of this project met an error of the system that names a file. A user's own
    module, where the same may be a mistake in its code, keeps its traceback.
    """
    if not isinstance(error, OSError) or error.filename is None:
        return False
    names = [
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    modules = [name for name in names if name.split(".")[0] not in sys.stdlib_module_names]
    return bool(modules) and _is_own(modules[-1])


def _line(error: BaseException) -> str:
    """What is printed of a known error."""
    return f"{error.filename}: {error.strerror}" if _names_a_file(error) else str(error)


def exit_status(error: BaseException) -> int:
    """1 for unknown errors; for known ones their own, else 2 for wrong input, else 3; NO_READER."""
    if has_no_reader(error):
        return NO_READER
    known = getattr(error, "exit_status", 2 if isinstance(error, ValueError) else 3)
    return int(known) if is_known(error) else 1


def _quieten() -> None:
    """Silence torch's launcher and Python's resource tracker, so that the error is printed last."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")


def _launch_config(
    processes: int,
    nodes: int,
    node_rank: int,
    url: str,
    restarts: int,
    stop_seconds: int,
    folder: str,
) -> LaunchConfig:
    if nodes > 1 and not 0 <= node_rank < nodes:
        raise LaunchError(
            f"--rank {node_rank} of --world-size {nodes}: nodes are numbered from 0 to {nodes - 1}"
        )
    settings: dict[str, Any] = dict(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        max_restarts=restarts,
        monitor_interval=0.5,
        shutdown_timeout=stop_seconds,
        rdzv_backend="c10d",
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )
    if nodes == 1:  # localhost resolves on every machine; port 0 is any free one
        settings.update(
            run_id=uuid.uuid4().hex, rdzv_endpoint="localhost:0", local_addr="localhost"
        )
    else:
        host, port = _host_and_port(url)
        settings.update(
            run_id="swahr", rdzv_endpoint=f"{host}:{port}", rdzv_configs={"is_host": node_rank == 0}
        )
        if host in ("localhost", "127.0.0.1"):
            settings.update(local_addr=host)
    known = {field.name for field in fields(LaunchConfig)}
    return LaunchConfig(**{name: value for name, value in settings.items() if name in known})


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:  # the port is not a number
        pass
    raise LaunchError(
        f"--dist-url is {url!r}; several nodes need tcp://HOST:PORT of node 0, "
        "such as tcp://10.0.0.1:2345"
    )


def _wait_for_node_0(url: str, node_rank: int) -> None:
    """Return once node 0 can be reached, and say once that it is waited for.

    torch would try as long without a word, and then print frames of its C++ code. Raises
    LaunchError after JOIN_SECONDS.
    """
    end = time.monotonic() + JOIN_SECONDS
    told = False
    while reason := _why_unreachable(*_host_and_port(url), node_rank):
        if time.monotonic() >= end:
            raise LaunchError(
                f"--dist-url {url}: node 0 could not be reached in {JOIN_SECONDS:g} s ({reason})"
            )
        if not told:
            logger.warning("waiting for node 0 at %s (%s)", url, reason)
            told = True
        time.sleep(JOIN_INTERVAL)


def _why_unreachable(host: str, port: int, node_rank: int) -> str:
    """Why a node cannot reach node 0; "" if it can. Node 0 itself only needs to know the host."""
    try:
        if node_rank == 0:
            socket.getaddrinfo(host, port)
        else:
            socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:  # raised for names such as a..b
        return "not the name of a host"
    return ""


def _why_not_met(endpoint: str, error: BaseException) -> str:
    """What was wrong with an address at which the nodes did not meet."""
    if isinstance(error, RendezvousTimeoutError):
        return f"{endpoint}: not all nodes came there in time"
    reason = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
    return f"{endpoint}: the nodes cannot meet there ({reason.rpartition('message: ')[2]})"


def _run_rank(function: Callable[..., T], args: tuple, folder: str) -> T:
    """What each launched process calls. Errors reach the launcher by error file and exit status.

    folder: of the launcher, where a process that waits for signals leaves its mark.
    """
    mark_in(folder)
    _say_where_rank_0_is()
    try:
        return _call_and_report(function, args)
    except (Exception, Interrupted) as error:
        get_error_handler().record_exception(error)
        if not isinstance(error, Interrupted) and not _lost_peer(error):
            error_file = Path(os.environ["TORCHELASTIC_ERROR_FILE"])
            error_file.with_name(FAILED).write_text(f"{comm.rank()} {exit_status(error)}")
        _leave(exit_status(error))


def _say_where_rank_0_is() -> None:
    """One line on a node whose processes will log nothing, as rank 0 is elsewhere."""
    rank, here, size = (int(os.environ[n]) for n in ("RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if rank and os.environ["LOCAL_RANK"] == "0":
        ranks = f"{rank} to {rank + here - 1}" if here > 1 else str(rank)
        print(f"ranks here: {ranks} of {size}; rank 0, on another node, logs", file=sys.stderr)


def _leave(status: int) -> NoReturn:
    """End the process; if it has peers, without the interpreter's shutdown.

    The shutdown may abort: gloo's threads release tensors, and the Python objects in them, possibly
    after the interpreter is gone. In a group, peers may also still wait, so exit functions are not
    called either.
    """
    if not comm.launched():
        sys.exit(status)
    if not comm.has_group():
        atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _call_and_report(function: Callable[..., T], args: tuple) -> T:
    """Call the function; if a peer was lost, let the failing rank report first."""
    try:
        return function(*args)
    except Exception as error:
        if _lost_peer(error):
            time.sleep(LOST_PEER_GRACE)
        raise


def _lost_peer(error: BaseException) -> bool:
    """Whether the error only says that a peer is gone (gloo's are plain RuntimeErrors)."""
    text = str(error).lower()
    known = any(part in text for part in ("gloo", "connection closed", "connection reset"))
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and known)


def _pass_on(number: int, frame: FrameType | None) -> None:
    raise SignalException(f"got signal {number}", signal.Signals(number))


def _attempts(folder: str) -> list[Path]:
    """The folders that torch's launcher made, one for each start of the processes, oldest first."""
    found = Path(folder).glob("*/attempt_*")
    return sorted(found, key=lambda path: int(path.name.rpartition("_")[2]))


def _failed_while_stopping(folder: str) -> WorkerError | None:
    """The first error of the processes that were running when the launcher got a signal.

    Then torch's launcher does not look at how they end. Those that only lost a peer do not count.
    """
    files = [file for attempt in _attempts(folder)[-1:] for file in attempt.glob(f"*/{FAILED}")]
    if not files:
        return None
    first = min(files, key=lambda path: path.stat().st_mtime_ns)
    rank, status = map(int, first.read_text().split())
    error = json.loads(first.with_name("error.json").read_text())
    return _worker_error(rank, error["message"], status)


def _worker_error(rank: int, said: Any, exitcode: int) -> WorkerError:
    """said: torch's record of the error, or a text."""
    message: dict[str, Any] = said if isinstance(said, dict) else {"message": said}
    if exitcode > 1:  # that of a known error, whose line is enough
        return WorkerError(str(message["message"]).partition(": ")[2], exitcode)
    lines = [f"process {rank} of the run failed: {message['message']}"]
    if trace := message.get("extraInfo", {}).get("py_callstack"):
        lines.append(trace.rstrip())
    return WorkerError("\n".join(lines), 1 if exitcode > 0 else 128 - exitcode)


def _rank_prefix() -> str:
    return f"rank {comm.rank()}: " if comm.world_size() > 1 else ""
