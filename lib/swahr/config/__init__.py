"""The configuration: YAML files over commented defaults, checked as a whole, then frozen.

    cfg = load_config("experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml", ["TEST.FLIP_TEST",
    "False"])

Only entry points and build_*(cfg) functions read it; classes take plain numbers.
"""

from swahr.config.errors import ConfigError
from swahr.config.load import load_config
from swahr.config.paths import (
    check_files,
    configured_skeleton,
    log_dir,
    output_dir,
    resolve_path,
    save_config,
)
from swahr.config.schema import defaults

__all__ = [
    "ConfigError",
    "check_files",
    "configured_skeleton",
    "defaults",
    "load_config",
    "log_dir",
    "output_dir",
    "resolve_path",
    "save_config",
]
