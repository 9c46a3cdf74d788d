"""Pajek's .net: `*Vertices`, then `*Arcs`, `*Edges`, `*Arcslist`, `*Edgeslist` or `*Matrix`.

Own code, because `networkx.read_pajek` takes labels for ids, so that two papers with one title
become one, and knows neither lists that leave vertices out, nor `*Arcslist`, nor comments (`%`).
A paper's id is its label where every vertex has a label of its own, else its number.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from citeflow.data.diagnosis import quote
from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

BATCH_ROWS = 1 << 18
MAX_VERTICES = 200_000_000
SECTIONS = ("*arcs", "*edges", "*arcslist", "*edgeslist", "*matrix")


def _is_pajek(file: SourceFile) -> bool:
    lines = file.head[:4096].decode("utf-8-sig", "ignore").splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("%")), "")
    return first.lower().startswith(("*vertices", "*network"))


def sniff(source: Source) -> Evidence | None:
    """Recognize `*Vertices`."""
    if not (found := source.where(_is_pajek)):
        return None
    return Evidence(CERTAIN, f"{found[0].path.name} begins with *Vertices")


def read(source: Source, notes: Notes) -> Stream:
    """Read the vertices and arcs of the first network of a file."""
    files = source.where(_is_pajek)
    notes.ignore_files(source, files, "no network of Pajek")
    for file in files:
        yield from _Reader(file, notes).read()


class _Reader:
    def __init__(self, file: SourceFile, notes: Notes) -> None:
        self._file = file
        self._notes = notes
        self._number = 0

    def read(self) -> Stream:
        with self._file.open() as opened:
            lines = self._lines(opened)
            count, section = self._head(lines)
            labels, section = self._vertices(lines, count, section)
            ids = self._ids(count, labels)
            yield base.papers(ids, title=_titles(count, labels))
            citing: list[int] = []
            cited: list[int] = []
            for source, target in self._arcs(lines, count, section):
                citing.append(source - 1)
                cited.append(target - 1)
                if len(citing) == BATCH_ROWS:
                    yield base.citations(ids.take(pa.array(citing)), ids.take(pa.array(cited)))
                    citing, cited = [], []
            yield base.citations(
                ids.take(pa.array(citing, pa.int64())), ids.take(pa.array(cited, pa.int64()))
            )

    def _lines(self, opened: Iterable[bytes]) -> Iterator[str]:
        for line in opened:
            self._number += 1
            text = line.decode("utf-8-sig", "replace").strip()
            if text and not text.startswith("%"):
                yield text

    def _error(self, problem: str, line: str) -> DataError:
        return DataError(f"{self._file.path}, line {self._number}: {problem}", quote(line))

    def _head(self, lines: Iterator[str]) -> tuple[int, str]:
        for line in lines:
            words = line.split()
            if words[0].lower() == "*vertices":
                if (
                    len(words) < 2
                    or not words[1].isdecimal()
                    or not 0 < int(words[1]) <= MAX_VERTICES
                ):
                    raise self._error("*Vertices needs their number", line)
                if int(words[1]) > 1000 + 100 * self._file.path.stat().st_size:
                    raise self._error("more vertices than the file can have", line)
                return int(words[1]), ""
        raise self._error("no *Vertices", "the file ends")

    def _vertices(
        self, lines: Iterator[str], count: int, section: str
    ) -> tuple[dict[int, str], str]:
        labels: dict[int, str] = {}
        for line in lines:
            if line.startswith("*"):
                return labels, line
            number, _, rest = line.partition(" ") if " " in line else line.partition("\t")
            if not number.isdecimal() or not 1 <= int(number) <= count:
                raise self._error(f"a number from 1 to {count} expected", line)
            if label := _label(rest.strip()):
                labels[int(number)] = label
        return labels, section

    def _ids(self, count: int, labels: dict[int, str]) -> pa.Array:
        if len(labels) == count and len(set(labels.values())) == count:
            return pa.array([labels[number] for number in range(1, count + 1)])
        if labels:
            self._notes.remark("labels are not all there and different, so numbers are the ids")
        return pa.array([str(number) for number in range(1, count + 1)])

    def _arcs(self, lines: Iterator[str], count: int, line: str) -> Iterator[tuple[int, int]]:
        section = self._section(line)
        row = 0
        for line in lines:
            if line.startswith("*"):
                if line.lower().startswith(("*vertices", "*network", "*partition", "*vector")):
                    self._notes.remark(f"only the first network is read: {quote(line)} follows")
                    return
                section = self._section(line)
                row = 0
                continue
            row += 1
            yield from self._pairs(section, line, row, count)

    def _section(self, line: str) -> str:
        section = line.split(":")[0].split()[0].lower() if line else ""
        if section and section not in SECTIONS:
            raise self._error("a section that is not known", line)
        if section.startswith("*edges"):
            self._notes.remark("edges (*Edges) have no direction; they are read from left to right")
        return section

    def _pairs(self, section: str, line: str, row: int, count: int) -> Iterator[tuple[int, int]]:
        words = line.split()
        if section == "*matrix":
            yield from ((row, at) for at, word in enumerate(words, 1) if word not in ("0", "0.0"))
            return
        is_list = section.endswith("list")
        if not section or len(words) < 2:
            raise self._error("two numbers expected", line)
        ends = words if is_list else words[:2]
        numbers = [abs(int(word)) if word.lstrip("-").isdecimal() else 0 for word in ends]
        if not all(1 <= number <= count for number in numbers):
            raise self._error(f"numbers of vertices from 1 to {count} expected", line)
        yield from ((numbers[0], number) for number in numbers[1:])


def _titles(count: int, labels: dict[int, str]) -> pa.Array | None:
    """Labels of several words are titles, too; single words are names."""
    if not any(" " in label for label in labels.values()):
        return None
    return pa.array([labels.get(number) for number in range(1, count + 1)], pa.string())


def _label(rest: str) -> str:
    if not rest.startswith('"'):
        return rest.split()[0] if rest else ""
    end = rest.find('"', 1)
    return rest[1 : end if end > 0 else None].strip()


IMPORTER = Importer(name="pajek", title="Pajek .net", sniff=sniff, read=read)
