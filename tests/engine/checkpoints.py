"""Checkpoints as the trainer writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from swahr.engine.checkpoint import (
    NEWEST,
    PREVIOUS,
    Progress,
    RunIdentity,
    checkpoint_content,
    write_whole,
)


def save_checkpoint(
    folder: Path,
    *,
    identity: RunIdentity | None = None,
    weights: Mapping[str, Tensor] | None = None,
    optimizer: dict[str, Any] | None = None,
    scaler: dict[str, Any] | None = None,
    progress: Progress | None = None,
    hooks: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write checkpoint.pth.tar; the one before becomes checkpoint_previous.pth.tar."""
    content = checkpoint_content(
        identity or RunIdentity(),
        weights or {},
        optimizer or {},
        scaler or {},
        progress or Progress(),
        hooks or {},
    )
    write_whole(content, folder / NEWEST, previous=folder / PREVIOUS)
