"""What a search may try: settings, and for each a range or a list of values. Text in, frozen values out; no library."""

import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from citeflow import config
from citeflow.config import SECTIONS, Config
from citeflow.errors import ConfigError
from citeflow.utils.records import convert, nearest

MOST_TRIALS = 1000

DEFAULT = """\
train.lr: {low: 0.002, high: 0.1, log: true}
train.num_negatives: {low: 64, high: 1024, log: true}
model.dropout: {low: 0.0, high: 0.6}
model.hidden_channels: [64, 128, 256]
model.num_layers: {low: 1, high: 3}
"""
"""Searched where nothing else is asked for."""

FIXED = ("train.seed", "train.num_validations")
"""Settings that make trials incomparable; so do all of the other sections."""

BOUNDS = ("low", "high", "log")
EXAMPLE = "such as {low: 0.001, high: 0.1, log: true}, or [64, 128]"

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Numbers between two bounds, both of which may be taken."""

    key: str
    """Full name of the setting."""

    low: float
    high: float
    is_whole: bool
    """Whether only whole numbers are tried."""

    log: bool = False
    """Whether each power of ten is as likely as any other."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    @property
    def bounds(self) -> tuple[Value, Value]:
        """The bounds in the type of the setting."""
        return (int(self.low), int(self.high)) if self.is_whole else (self.low, self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Values of which one is taken."""

    key: str
    """Full name of the setting."""

    values: tuple[Value, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values


Parameter = Range | Choice
Space = tuple[Parameter, ...]


def from_yaml(text: str, base: Config) -> Space:
    """Read a search space from YAML text; an empty one is DEFAULT.

    Args:
        text: full names of settings, each with bounds or a list.
        base: all other settings, with which each bound and each value has to make a valid Config.

    Raises:
        ConfigError: a name is unknown (the nearest right one is in the hint), or a value does not fit.
    """
    try:
        entries = yaml.safe_load(text.strip() or DEFAULT)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError("space is not YAML", str(error).splitlines()[0]) from None
    return from_dict(entries, base)


def from_dict(entries: object, base: Config) -> Space:
    """As `from_yaml`, from plain values."""
    if not isinstance(entries, Mapping) or not entries:
        raise ConfigError(
            "space must hold settings", type(entries).__name__, hint=f"train.lr: {EXAMPLE}"
        )
    return tuple(_parameter(str(key), entry, base) for key, entry in entries.items())


def to_yaml(space: Space) -> str:
    """The space as text; `from_yaml` gives it back."""
    return yaml.safe_dump(to_dict(space), sort_keys=False, default_flow_style=None)


def to_dict(space: Space) -> dict[str, Any]:
    """The space as plain values."""
    return {parameter.key: _plain(parameter) for parameter in space}


def of(base: Config, space: Space) -> dict[str, Value]:
    """The values that settings have at the keys of a space."""
    values = base.to_dict()
    return {parameter.key: _get(values, parameter.key) for parameter in space}


def configured(base: Config, values: Mapping[str, Value]) -> Config:
    """The settings with other values at some keys.

    Raises:
        ConfigError: they do not go together.
    """
    settings = base.to_dict()
    for key, value in values.items():
        section, _, name = key.partition(".")
        settings[section][name] = value
    return config.from_dict(settings)


def as_options(values: Mapping[str, Value]) -> str:
    """Values as they are given to any command of citeflow."""
    return " ".join(f"--set {key}={as_text(value)}" for key, value in values.items())


def as_text(value: Value) -> str:
    """A value as YAML reads it back, whichever type it has."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(parameter: Parameter) -> Any:
    if isinstance(parameter, Choice):
        return list(parameter.values)
    low, high = parameter.bounds
    return {"low": low, "high": high, **({"log": True} if parameter.log else {})}


def _parameter(key: str, entry: object, base: Config) -> Parameter:
    kind = _kind(key)
    if isinstance(entry, Mapping):
        parameter: Parameter = _range(key, entry, kind)
    elif isinstance(entry, list):
        parameter = _choice(key, entry, kind)
    else:
        raise ConfigError(f"nothing to choose from for {key}", entry, hint=EXAMPLE)
    for value in parameter.values if isinstance(parameter, Choice) else parameter.bounds:
        configured(base, {key: value})
    return parameter


def _kind(key: str) -> Any:
    """The type of a setting that may be searched."""
    section, _, name = key.partition(".")
    searched = [
        each
        for each in config.all_keys()
        if each.startswith(("model.", "train.")) and each not in FIXED
    ]
    if key in config.all_keys() and key not in searched:
        why = "trials that differ in it can not be compared"
        raise ConfigError(
            "not a setting to search",
            key,
            hint=f"{why}; model.* and most of train.* can be searched",
        )
    if key not in searched:
        raise ConfigError("unknown setting", key, hint=nearest(key, searched))
    return typing.get_type_hints(SECTIONS[section])[name]


def _range(key: str, entry: Mapping[Any, Any], kind: Any) -> Range:
    if kind not in (int, float):
        raise ConfigError(f"{key} has no bounds", dict(entry), hint=f"a list: {_all_values(kind)}")
    _check_names(key, entry)
    low, high = (convert(f"{key}, {name}", entry[name], kind) for name in ("low", "high"))
    log = convert(f"{key}, log", entry.get("log", False), bool)
    if not low < high:
        raise ConfigError(f"{key}, low is not below high", f"{low} and {high}")
    if log and low <= 0:
        raise ConfigError(f"{key}, low", low, hint="above 0 where log is true")
    return Range(key=key, low=low, high=high, is_whole=kind is int, log=log)


def _check_names(key: str, entry: Mapping[Any, Any]) -> None:
    for name in entry:
        if name not in BOUNDS:
            raise ConfigError(f"{key} has no such bound", name, hint=nearest(str(name), BOUNDS))
    for name in BOUNDS[:2]:
        if name not in entry:
            raise ConfigError(f"{key} lacks a bound", name, hint=EXAMPLE)


def _choice(key: str, entry: Iterable[object], kind: Any) -> Choice:
    values = tuple(convert(key, value, kind) for value in entry)
    if len(set(values)) < max(2, len(values)):
        raise ConfigError(f"{key} needs two or more different values", list(values), hint=EXAMPLE)
    return Choice(key=key, values=values)


def _all_values(kind: Any) -> str:
    return str(
        list(typing.get_args(kind)) if typing.get_origin(kind) is Literal else [True, False]
    ).lower()


def _get(values: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return values[section][name]


def check_trials(trials: int, parallel: int) -> None:
    """Find out whether a search can have so many trials, so many at a time.

    Raises:
        ConfigError: it can not.
    """
    if not 1 <= trials <= MOST_TRIALS:
        raise ConfigError("trials", trials, hint=f"1 to {MOST_TRIALS}")
    if parallel < 1:
        raise ConfigError("parallel", parallel, hint="at least 1")
