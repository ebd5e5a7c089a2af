"""Folders of published models on the Hugging Face hub: fetched and sent by huggingface-hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swahr.engine.model_files import (
    PUBLISHED_CONFIG,
    PUBLISHED_SKELETON,
    PUBLISHED_WEIGHTS,
    LoadError,
)

FILES = (PUBLISHED_CONFIG, PUBLISHED_SKELETON, PUBLISHED_WEIGHTS)


def fetch(repo_id: str, **options: Any) -> Path:
    """The folder of a model on the hub, downloaded into the cache if it is not there yet.

    options: of huggingface_hub.snapshot_download, such as revision, token and cache_dir. Raises
    LoadError in one line.
    """
    hub = _library()
    try:
        return Path(hub.snapshot_download(repo_id, allow_patterns=list(FILES), **options))
    except (OSError, ValueError) as error:
        raise _refused(
            repo_id, "is no folder here, and cannot be fetched from the hub", error
        ) from None


def send(folder: Path, repo_id: str, *, private: bool | None, token: str | None, note: str) -> str:
    """Upload the folder of a published model, made anew if needed. Returns its address."""
    hub = _library()
    try:
        api = hub.HfApi(token=token)
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message=note,
            delete_patterns=[PUBLISHED_SKELETON],  # of a model that was there
        )
    except (OSError, ValueError) as error:
        raise _refused(repo_id, "cannot be sent to the hub", error) from None
    return str(address)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise LoadError("the hub needs huggingface-hub: pip install 'swahr[hub]'") from None
    return huggingface_hub


def _refused(repo_id: str, what: str, error: Exception) -> LoadError:
    reason = " ".join(str(error).split())[:300]
    return LoadError(f"{repo_id}: {what} ({reason})")
