"""The parameters: reading, merging, checking, and the specification of each job."""

import re

from hamflow.config.reading import Config, beaten, by_hand, check, dump, load, merge, methods_of, read, resolve
from hamflow.config.sections import Method, Parameters
from hamflow.config.specs import (
    dataset_spec,
    discrepancy_spec,
    evaluation_spec,
    options_of,
    parse_spec,
    proxy_spec,
    sampler_settings,
    sampling_spec,
    study_spec,
    tournament_spec,
    training_spec,
)
from hamflow.registry import FIX_NAMES, WHY_NAMES

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

__all__ = [
    "FIX_NAMES",
    "NAME",
    "WHY_NAMES",
    "Config",
    "Method",
    "Parameters",
    "beaten",
    "by_hand",
    "check",
    "dataset_spec",
    "discrepancy_spec",
    "dump",
    "evaluation_spec",
    "load",
    "merge",
    "methods_of",
    "options_of",
    "parse_spec",
    "proxy_spec",
    "read",
    "resolve",
    "sampler_settings",
    "sampling_spec",
    "study_spec",
    "tournament_spec",
    "training_spec",
]
