"""Folders of published models on the Hugging Face hub: fetched and sent by huggingface-hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swahr.engine.model_files import (
    PUBLISHED_CONFIG,
    PUBLISHED_SKELETON,
    PUBLISHED_WEIGHTS,
    LoadError,
)

FILES = (PUBLISHED_CONFIG, PUBLISHED_SKELETON, PUBLISHED_WEIGHTS)
# Their errors tell of the network, the address or the account; httpx has two names.
LIBRARIES = ("huggingface_hub", "httpx", "httpx2", "requests")


def fetch(repo_id: str, **options: Any) -> Path:
    """The folder of a model on the hub, downloaded into the cache if it is not there yet.

    options: of huggingface_hub.snapshot_download, such as revision, token and cache_dir. Raises
    LoadError in one line.
    """
    hub = _library()
    with _in_one_line(f"{repo_id}: is no folder here, and cannot be fetched from the hub"):
        return Path(hub.snapshot_download(repo_id, allow_patterns=list(FILES), **options))


def send(folder: Path, repo_id: str, *, private: bool | None, token: str | None, note: str) -> str:
    """Upload the folder of a published model, made anew if needed. Returns its address.

    Raises LoadError in one line.
    """
    hub = _library()
    with _in_one_line(f"{repo_id}: cannot be sent to the hub"):
        api = hub.HfApi(token=token)
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message=note,
            delete_patterns=[PUBLISHED_SKELETON],  # of a model that was there
        )
    return str(address)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise LoadError("the hub needs huggingface-hub: pip install 'swahr[hub]'") from None
    return huggingface_hub


@contextmanager
def _in_one_line(problem: str) -> Iterator[None]:
    """Raise LoadError, with the reason after the problem, where the hub or the network fails."""
    try:
        yield
    except Exception as error:
        origins = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if not isinstance(error, OSError | ValueError) and origins.isdisjoint(LIBRARIES):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise LoadError(f"{problem} ({reason})") from None
