"""How a value from YAML or from the command line becomes a setting of the right type."""

import difflib
import typing
from collections.abc import Iterable
from typing import Any, Literal

import yaml

from citeflow.errors import ConfigError

LARGEST = 2**63
"""Numbers stay below it, on either side of 0."""


def convert(name: str, value: object, kind: Any) -> Any:
    """Check a value against the type hint of its field and convert it.

    Raises:
        ConfigError: it does not fit.
    """
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ConfigError(name, value, hint=f"one of {', '.join(choices)}")
        return value
    number = _number_or_same(value)
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < LARGEST
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and is_number and float(number).is_integer():  # type: ignore[arg-type]
        return int(number)  # type: ignore[call-overload]
    if kind is float and is_number:
        return float(number)  # type: ignore[arg-type]
    if kind is str:
        return str(value)
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    raise ConfigError(name, value, hint=f"must be {names.get(kind, kind.__name__)}")


def parse_value(key: str, text: str) -> object:
    """Read what stands behind the equals sign of `--set`.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        raise ConfigError(key, text, hint="the value is not YAML") from None


def _number_or_same(value: object) -> object:
    """YAML reads 1e-3 as text, for want of a dot."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a name that does not exist."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(names)}"
