"""Reads what a user gives `predict`: a text, identifiers, features, or a file of many papers."""

import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from citeflow.data.diagnosis import first_line, quote
from citeflow.data.features import NOT_AN_ARRAY
from citeflow.data.importers.kinds import kind_of
from citeflow.data.importers.source import SourceFile
from citeflow.errors import DataError, NotFoundError
from citeflow.evaluation.queries import QueryPaper
from citeflow.utils import records

STDIN = "-"

MAX_TEXT_BYTES = 1 << 20
"""Longer files are no title and abstract."""

TEXT_HINT = "UTF-8 text, with the title on the first line and the abstract below"


def read_text(name: str) -> tuple[str, str]:
    """Return the title and the abstract of a file; of stdin for `-`.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is empty, or no text.
    """
    content = _read_bytes(name)
    if len(content) > MAX_TEXT_BYTES:
        raise DataError(f"{name} is no title and abstract", f"{len(content):,} bytes")
    title, _, abstract = _decode(content, name).strip().partition("\n")
    if not title:
        raise DataError("no text in", name, hint=TEXT_HINT)
    return title.strip(), abstract.strip()


def read_ids(value: str) -> tuple[str, ...]:
    """Return identifiers with commas between them, or `@FILE` of one per line or with commas.

    Raises:
        NotFoundError: there is no such file.
        DataError: there is none among them.
    """
    text = _decode(_read_bytes(value[1:]), value[1:]) if value.startswith("@") else value
    names = tuple(name.strip() for name in re.split(r"[,\n]", text) if name.strip())
    if not names:
        raise DataError("no identifiers in", value, hint="--references ID,ID or @FILE")
    return names


def read_features(path: Path) -> tuple[float, ...]:
    """Return the features of one paper from a .npy file, [F] or [1, F].

    Raises:
        NotFoundError: there is no such file.
        DataError: it holds something else.
    """
    if not path.is_file():
        raise NotFoundError("no such file", path)
    try:
        array = np.load(path, allow_pickle=False)
    except (*NOT_AN_ARRAY, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a usable .npy array", first_line(error)) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} does not hold real numbers", getattr(array, "dtype", "an archive of arrays")
        )
    if array.ndim != 1 and array.shape[:-1] != (1,):
        hint = "the features of one paper, [F]; of many with --batch"
        raise DataError(f"{path} holds more than one paper", array.shape, hint=hint)
    if not np.isfinite(array).all():
        raise DataError(f"{path} holds a number that is not finite", array.shape)
    return tuple(array.ravel().tolist())


def read_batch(name: str) -> list[tuple[int, QueryPaper]]:
    """Return the papers of a file of JSON lines, or of stdin, each with the number of its line.

    Raises:
        NotFoundError: there is no such file.
        DataError: a line is no JSON object, or has a wrong or unknown field; or there is none.
    """
    lines = list(_json_lines(_decode(_read_bytes(name), name), name))
    if not lines:
        hint = 'a line is such as {"title": "On strings", "references": ["7", "9"]}'
        raise DataError("no papers in", name, hint=hint)
    return [
        (number, records.load(QueryPaper, values, name=f"{name}, line {number}", error=DataError))
        for number, values in lines
    ]


def _json_lines(text: str, name: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            hint = "one JSON object per line"
            raise DataError(f"{name}, line {number}: not JSON", quote(line), hint=hint) from None
        if isinstance(values, dict):
            values = {key: value for key, value in values.items() if value is not None}
        yield number, values


def _read_bytes(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read()
    path = Path(name)
    if not path.is_file():
        raise NotFoundError("no such file", name)
    return path.read_bytes()


def _decode(content: bytes, name: str) -> str:
    """Decode UTF-8.

    Raises:
        DataError: it is no text; the message says what it is.
    """
    try:
        text = content.decode("utf-8-sig")
        if "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    kind = None if name == STDIN else kind_of(SourceFile(Path(name)))
    value = f"{name} is {kind.what}" if kind else name
    raise DataError("not UTF-8 text", value, hint="save it as plain text in UTF-8")
