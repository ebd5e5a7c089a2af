"""The configuration: YAML files over the defaults of the schema, checked as a whole, then frozen.

    cfg = load_config("experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml", ["TRAIN.LR=0.001"])

Only entry points and build_*(cfg) functions read it; classes take plain numbers and parts.
"""

from swahr.config.errors import ConfigError, Problem
from swahr.config.listing import list_keys
from swahr.config.load import (
    OWN_SKELETON,
    check_trained_maps,
    fit_to_network,
    load_config,
    load_text,
)
from swahr.config.paths import (
    check_files,
    configured_skeleton,
    log_dir,
    output_dir,
    resolve_path,
    run_name,
    save_config,
)
from swahr.config.places import raise_problems
from swahr.config.read import check_pairs
from swahr.config.schema import SCHEMA, Key, defaults

__all__ = [
    "OWN_SKELETON",
    "SCHEMA",
    "ConfigError",
    "Key",
    "Problem",
    "check_files",
    "check_pairs",
    "check_trained_maps",
    "configured_skeleton",
    "defaults",
    "fit_to_network",
    "list_keys",
    "load_config",
    "load_text",
    "log_dir",
    "output_dir",
    "raise_problems",
    "resolve_path",
    "run_name",
    "save_config",
]
