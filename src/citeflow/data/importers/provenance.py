"""Name the user's own file, line and column in what is said of the two tables that were imported.

The tables know no lines of the source, as Arrow knows none of a CSV file: for an error, and only
then, the source is read again.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from citeflow.data.diagnosis import quote
from citeflow.data.importers.source import SourceFile, open_source
from citeflow.data.importers.unpacked import unpacked
from citeflow.errors import CiteflowError, DataError, NotFoundError

TABLES = ("papers", "citations")
WHOLE, BELOW, LONE = range(3)
"""How sure a place is, from the surest on."""

LONG_LINE = 1000
"""Characters from which on a line says little without the place in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """The source that the two tables in a folder were made of."""

    folder: Path
    source: str
    """Path or URL that the user gave."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Names that the source has for the tables and their columns."""

    def rewrite(self, text: str, *, with_lines: bool = False) -> str:
        """Replace the tables and their columns by the user's own, and their rows if it is asked."""
        for table in TABLES:
            pattern = rf"({re.escape(str(self.folder))}/)?{table}\.parquet(?:, row (\d+))?"
            for match in reversed(list(re.finditer(pattern, text))):
                file = self.columns.get(f"{table}.parquet", "")
                there = str(Path(self.source, file)) if match[1] else Path(self.source, file).name
                if match[2] and with_lines:
                    column = re.match(r": column '(\w+)'", text[match.end() :])
                    there = self._find_row(table, int(match[2]) - 1, column[1] if column else "")
                text = f"{text[: match.start()]}{there}{text[match.end() :]}"
        for name, original in self.columns.items():
            text = text.replace(f"column {quote(name)}", f"column {quote(original)}")
        return text.replace(str(self.folder), self.source)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Let the errors of a block name the source."""
        try:
            yield
        except (DataError, NotFoundError) as error:
            what = self.rewrite(error.what, with_lines=True)
            value, hint = self.rewrite(error.value), self.rewrite(error.hint)
            raise type(error)(what, value, hint=hint, exit_code=error.exit_code) from None

    def _find_row(self, table: str, row: int, column: str) -> str:
        is_paper = table == "papers"
        names = ["id", column] if is_paper else ["citing", "cited"]
        keys = _read_row(self.folder / f"{table}.parquet", row, names)
        noun = "paper" if is_paper else "citation"
        fallback = f"{self.source}, {noun} {' to '.join(map(quote, keys[: 1 if is_paper else 2]))}"
        if re.match(r"https?:", self.source):
            return fallback
        try:
            with unpacked(self.source, self.folder.parent) as path:
                wanted = self.columns.get(column, "").encode() if is_paper else b""
                files = [file for file in open_source(path).files if wanted in file.head]
                places = [place for file in files for place in _find(file, keys, is_paper=is_paper)]
                best = min((place.rank for place in places), default=0)
                best_places = [place for place in places if place.rank == best]
                if not places or (best == LONE and len(best_places) > 1):
                    return fallback
                first = best_places[0]
                inside = "" if first.file == path else f"/{first.file.relative_to(path)}"
                return f"{self.source}{inside}, {first.text}"
        except (CiteflowError, OSError, ValueError):
            return fallback  # it was moved, or lies where this step cannot reach


class _Place(NamedTuple):
    rank: int
    file: Path
    text: str


def _read_row(file: Path, row: int, names: Sequence[str]) -> list[str]:
    """Read the values of a row that are there."""
    known = [name for name in names if name in pq.read_schema(file).names]
    for batch in pq.ParquetFile(file).iter_batches(1 << 20, columns=known):
        if row < len(batch):
            values = [batch.column(name)[row].as_py() for name in known]
            return [str(value) for value in values if value not in (None, "")]
        row -= len(batch)
    raise IndexError(row)


def _find(file: SourceFile, keys: Sequence[str], *, is_paper: bool) -> list[_Place]:
    """Find the line with all keys in their order; else what comes next to it.

    That is, of a citation, the cited paper below a line with the citing one, and of a paper each
    line that names it, two at most.
    """
    if b"\0" in file.head:
        return []
    pattern = re.compile(".*?".join(map(_token, keys)))
    last = re.compile(_token(keys[-1]))
    places: list[_Place] = []
    is_below = False
    with file.open() as opened:
        for number, raw in enumerate(opened, 1):
            line = raw.decode("utf-8", "replace")
            has_first = keys[0] in line
            if not has_first and not (is_below and keys[-1] in line):
                continue
            if len(keys) > 1 and (match := pattern.search(line)):
                place = f", character {match.start() + 1}" if len(line) > LONG_LINE else ""
                return [_Place(WHOLE, file.path, f"line {number}{place}")]
            if is_paper and len(places) < 2 and re.search(_token(keys[0]), line):
                places.append(_Place(LONE, file.path, f"line {number}"))
            elif not is_paper and is_below and not places and last.search(line):
                places.append(_Place(BELOW, file.path, f"line {number}"))
            is_below = is_below or has_first
    return places


def _token(key: str) -> str:
    return rf"(?<![\w.-]){re.escape(key)}(?![\w-])"
