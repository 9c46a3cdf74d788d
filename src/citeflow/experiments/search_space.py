"""The search space of a tuning experiment: settings, and bounds or a list of values for each.

A space is what Optuna calls one: a distribution by name. Optuna is imported only where a space is
read, so that commands without a search need no Optuna.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import yaml

from citeflow import config
from citeflow.config import C, TaskConfig
from citeflow.errors import ConfigError, MissingPackageError
from citeflow.experiments.trials import MAX_TRIALS
from citeflow.tasks import get_task
from citeflow.utils import records
from citeflow.utils.records import Bool, Float, Record, convert, nearest

if TYPE_CHECKING:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

FIXED = ("train.seed", "train.num_validations")
"""Settings of the searched sections in which trials must not differ: they would not compare."""

EXAMPLE = "such as {low: 0.001, high: 0.1, log: true}, or [64, 128]"
INSTALL = "pip install '.[train,kfp,tune]' in a checkout of citeflow"

Value = bool | int | float | str
Space = Mapping[str, "FloatDistribution | IntDistribution | CategoricalDistribution"]


class Bounds(Record):
    """A range of numbers, both ends included."""

    low: Float
    high: Float
    log: Bool = False
    """Sample uniformly in the logarithm."""


def from_yaml(text: str, base: TaskConfig) -> Space:
    """Read a search space from YAML text; an empty one is the default of the task.

    Args:
        text: full names of settings, each with bounds or a list of values.
        base: all other settings, with which each bound and each value has to be valid.

    Raises:
        ConfigError: a name is unknown (the hint has the nearest one), or a value does not fit.
        MissingPackageError: Optuna is not installed.
    """
    default = get_task(base.task).search_space
    return from_dict(records.parse_yaml(text.strip() or default, "space"), base)


def from_dict(entries: Mapping[str, object], base: TaskConfig) -> Space:
    """Read a search space from plain values; otherwise as `from_yaml`."""
    if not entries:
        raise ConfigError("space must hold settings", "none", hint=f"train.lr: {EXAMPLE}")
    return {str(key): _distribution(str(key), entry, base) for key, entry in entries.items()}


def to_dict(space: Space) -> dict[str, object]:
    """Return the space as plain values, which `from_dict` reads."""
    from optuna.distributions import FloatDistribution, IntDistribution

    entries: dict[str, object] = {}
    for key, distribution in space.items():
        if isinstance(distribution, (FloatDistribution, IntDistribution)):
            log = {"log": True} if distribution.log else {}
            entries[key] = {"low": distribution.low, "high": distribution.high, **log}
        else:
            entries[key] = list(distribution.choices)
    return entries


def to_yaml(space: Space) -> str:
    """Return the space as YAML text, which `from_yaml` reads."""
    return yaml.safe_dump(to_dict(space), sort_keys=False, default_flow_style=None)


def values_of(base: TaskConfig, space: Space) -> dict[str, Value]:
    """Return the values of the settings that a space searches."""
    return {key: value_of(base, key) for key in space}


def contains(space: Space, base: TaskConfig) -> bool:
    """Return whether settings are within a space."""
    from optuna.distributions import CategoricalDistribution

    for key, distribution in space.items():
        value = value_of(base, key)
        if isinstance(distribution, CategoricalDistribution):
            if value not in distribution.choices:
                return False
        elif isinstance(value, str) or not distribution.low <= value <= distribution.high:
            return False
    return True


def apply(base: C, values: Mapping[str, Value]) -> C:
    """Return settings with other values for some of them.

    Raises:
        ConfigError: they do not fit together.
    """
    changes: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        changes.setdefault(section, {})[name] = value
    return config.changed(base, changes)


def as_options(values: Mapping[str, Value]) -> str:
    """Format values as options of any citeflow command."""
    return " ".join(f"--set {key}={as_text(value)}" for key, value in values.items())


def as_text(value: Value) -> str:
    """Format a value as YAML reads it back."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_trials(trials: int, parallel: int) -> None:
    """Check the number of trials, and of those at a time.

    Raises:
        ConfigError: one of them is out of range.
    """
    if not 1 <= trials <= MAX_TRIALS:
        raise ConfigError("trials", trials, hint=f"1 to {MAX_TRIALS}")
    if parallel < 1:
        raise ConfigError("parallel", parallel, hint="at least 1")


def _distribution(
    key: str, entry: object, base: TaskConfig
) -> "FloatDistribution | IntDistribution | CategoricalDistribution":
    try:
        from optuna.distributions import CategoricalDistribution
    except ImportError:
        raise MissingPackageError("package is not installed", "optuna", hint=INSTALL) from None
    _check_searchable(key, base)
    kind = type(value_of(base, key))
    if isinstance(entry, Mapping):
        numbers = _range(key, entry, kind)
        for bound in (numbers.low, numbers.high):
            apply(base, {key: bound})
        return numbers
    if not isinstance(entry, list):
        raise ConfigError(f"nothing to choose from for {key}", entry, hint=EXAMPLE)
    choices = [convert(key, value, kind) for value in entry]
    if len(set(choices)) < max(2, len(choices)):
        raise ConfigError(f"{key} needs two or more different values", choices, hint=EXAMPLE)
    for choice in choices:
        apply(base, {key: choice})
    return CategoricalDistribution(choices)


def _range(
    key: str, entry: Mapping[str, object], kind: type
) -> "FloatDistribution | IntDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    if kind not in (int, float):
        raise ConfigError(f"{key} has no bounds", dict(entry), hint="a list of values")
    bounds = records.load(Bounds, entry, name=key)
    low = convert(f"{key}.low", bounds.low, kind)
    high = convert(f"{key}.high", bounds.high, kind)
    if not low < high:
        raise ConfigError(f"{key}.low is not below high", f"{low} and {high}")
    if bounds.log and low <= 0:
        raise ConfigError(f"{key}.low", low, hint="above 0 where log is true")
    if kind is int:
        return IntDistribution(int(low), int(high), log=bounds.log)
    return FloatDistribution(low, high, log=bounds.log)


def _check_searchable(key: str, base: TaskConfig) -> None:
    known = records.field_names(type(base))
    searchable = [
        name for name in known if name.startswith(("model.", "train.")) and name not in FIXED
    ]
    if key in known and key not in searchable:
        hint = "trials that differ in it cannot be compared; search model.* and most of train.*"
        raise ConfigError("not a setting to search", key, hint=hint)
    if key not in searchable:
        raise ConfigError("unknown setting", key, hint=nearest(key, searchable))


def value_of(base: TaskConfig, key: str) -> Value:
    """Return a setting by its full name."""
    section, _, name = key.partition(".")
    value: Value = getattr(getattr(base, section), name)
    return value
