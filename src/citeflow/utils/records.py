"""Typed records: one loader for everything that comes from YAML, JSON or a command line.

A record is a frozen pydantic model whose fields carry a doc string each. What does not fit it ends
with one of citeflow's own errors, which names the field, the value and what would be right.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    TypeAdapter,
    ValidationError,
)

from citeflow.errors import CiteflowError, ConfigError

MAX_NUMBER = 2**63
"""Numbers stay below it, on either side of 0, so that every JSON and YAML reader can hold them."""

WORDS = {
    "Input should be": "must be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
}
"""Pydantic's words, and those that citeflow's messages have for the same."""

R = TypeVar("R", bound="Record")
T = TypeVar("T")


class Record(BaseModel):
    """The base of every typed record: frozen, and without room for fields that nobody knows."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


def _to_number(value: object) -> object:
    """Read text as a number where it is one: YAML takes 1e-3, which has no dot, for text."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    if isinstance(value, (int, float)) and not abs(value) < MAX_NUMBER:
        raise ValueError("must be a number of ordinary size")
    return value


def _to_text(value: object) -> object:
    """Take a number as text, such as a tag `1.0` that YAML has read as one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number else value


def _or_empty(value: object) -> object:
    """Take nothing, as YAML reads `key:`, for empty text."""
    return "" if value is None else _to_text(value)


Int = Annotated[int, BeforeValidator(_to_number)]
Float = Annotated[float, BeforeValidator(_to_number)]
Str = Annotated[str, BeforeValidator(_to_text)]
OptionalStr = Annotated[str, BeforeValidator(_or_empty)]
"""Text that may be left empty."""
Bool = StrictBool


def load(
    record: type[R],
    values: object,
    *,
    name: str = "",
    renamed: Mapping[str, str] | None = None,
    error: type[CiteflowError] = ConfigError,
    hint: str = "",
) -> R:
    """Build a record from plain values.

    Args:
        record: its type.
        values: a mapping, as YAML or JSON gives it.
        name: what the values belong to, such as `job`; it precedes the names of the fields.
        renamed: former full names of fields, and those that they have now.
        error: the kind of error, where it is not the user's settings that are wrong.
        hint: what to do about it, where that is not to correct the value.

    Raises:
        CiteflowError: of the kind `error`; it names the first field that is wrong.
    """
    try:
        return record.model_validate(values)
    except ValidationError as invalid:
        raise _to_user_error(invalid, record, name, renamed or {}, error, hint) from None


def convert(name: str, value: object, kind: type[T]) -> T:
    """Convert one plain value to the type of a field.

    Raises:
        ConfigError: it does not fit.
    """
    field = {int: Int, float: Float, str: Str, bool: Bool}.get(kind, kind)
    try:
        return TypeAdapter(field, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as invalid:
        raise ConfigError(name, value, hint=_message(invalid.errors()[0]["msg"])) from None


def parse_yaml(text: str, name: str) -> dict[str, object]:
    """Parse YAML text that holds keys and values; empty text holds none.

    Raises:
        ConfigError: it is not YAML, or holds something else.
    """
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no such date
        hint = "in a form, all of it on one line: {train: {epochs: 3, lr: 0.001}}"
        raise ConfigError(f"{name} is not YAML", str(error).splitlines()[0], hint=hint) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must hold keys and values", type(values).__name__)
    return values


def one_line(text: str) -> str:
    """Write YAML text on one line, as a run form has it: a field there loses its line ends."""
    values = yaml.safe_load(text)
    if not values:
        return ""
    line = yaml.safe_dump(
        values, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return line.strip()


def parse_scalar(name: str, text: str) -> object:
    """Parse the YAML value behind the equals sign of `--set`.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(name, text, hint="the value is not YAML") from None


def nearest(name: str, names: Iterable[str]) -> str:
    """Suggest, for a name that does not exist, the ones that resemble it."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(names)}"


def field_names(record: type[BaseModel], prefix: str = "") -> list[str]:
    """List the full names of all fields, those of nested records behind a dot."""
    names = []
    for name, field in record.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += field_names(nested, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


def _to_user_error(
    invalid: ValidationError,
    record: type[BaseModel],
    prefix: str,
    renamed: Mapping[str, str],
    error: type[CiteflowError],
    hint: str,
) -> CiteflowError:
    first = invalid.errors(include_url=False, include_context=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    name = ".".join(part for part in (prefix, path) if part)
    if first["type"] == "extra_forbidden":
        if path in renamed:
            return error("setting was renamed", name, hint=f"it is now {renamed[path]}")
        known = field_names(record)
        suggestion = nearest(path, dict.fromkeys([*known, *record.model_fields]))
        return error("unknown setting", name, hint=hint or suggestion)
    if first["type"] == "missing":
        return error("a setting is missing", name, hint=hint)
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return error(f"{name or 'this'} must hold keys and values", first["input"], hint=hint)
    return error(name, first["input"], hint=hint or _message(first["msg"]))


def _message(text: str) -> str:
    """Say in citeflow's words what pydantic says of a value."""
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    for theirs, ours in WORDS.items():
        text = text.replace(theirs, ours)
    return text
