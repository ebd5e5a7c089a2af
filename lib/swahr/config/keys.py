"""Names of settings: the tree as a flat mapping of dotted keys, and the known key nearest to an
unknown one.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from yacs.config import CfgNode

from swahr.config.schema import defaults


def flatten(cfg: CfgNode, prefix: str = "") -> dict[str, Any]:
    """{'MODEL.EXTRA.DECONV.NUM_DECONVS': 1, ...} of a tree."""
    flat: dict[str, Any] = {}
    for key, value in cfg.items():
        flat.update(
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, CfgNode)
            else {prefix + key: value}
        )
    return flat


def unflatten(values: dict[str, Any]) -> CfgNode:
    """The tree of `flatten`, not frozen."""
    cfg = CfgNode()
    for name, value in values.items():
        *sections, key = name.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CfgNode())
        node[key] = list(value) if isinstance(value, list) else value
    return cfg


def lookup(cfg: Any, key: str) -> Any:
    """The value, or the section, of a dotted key."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


KEYS = tuple(flatten(defaults))
SECTIONS = tuple(
    dict.fromkeys(key[:end] for key in KEYS for end, letter in enumerate(key) if letter == ".")
)


def nearest_key(key: str) -> str:
    """The known key or section most like `key`, by its full name and by its last part."""
    key = key.upper()[:100]

    def likeness(known: str) -> float:
        last = SequenceMatcher(None, key.split(".")[-1], known.split(".")[-1]).ratio()
        return last + SequenceMatcher(None, key, known).ratio()

    return max((*KEYS, *SECTIONS), key=likeness)
