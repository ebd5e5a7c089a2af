"""Bottom-up multi-person pose estimation: HigherHRNet with SWAHR.

    import swahr

    model = swahr.load("run folder, YAML file or weights")
    result = model("photo.jpg")

The names below are imported when they are first used. Every part (networks, losses, targets,
decoding, evaluation) can be used on its own from its package, without a configuration.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "1.0.0"

_WHERE = {
    "COCO": "swahr.skeleton",
    "CROWD_POSE": "swahr.skeleton",
    "ConfigError": "swahr.config",
    "LoadError": "swahr.api",
    "PoseModel": "swahr.api",
    "Result": "swahr.results",
    "Skeleton": "swahr.skeleton",
    "build_model": "swahr.models.build",
    "evaluate": "swahr.evaluation.metrics",
    "load": "swahr.api",
    "load_config": "swahr.config",
}
__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'swahr' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
