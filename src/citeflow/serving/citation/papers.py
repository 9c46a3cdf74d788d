"""Names of the papers of a ServingIndex, which stay on the disk: identifiers, titles, their words.

A dictionary of millions of names would take a gigabyte, and seconds at each start. Here a name is
found by bisection, and a title by lists of the papers that have a word.

Legend: N papers, W words, E words of papers.
"""

import bisect
import difflib
import re
import unicodedata
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from citeflow import files
from citeflow.data.tables import reading
from citeflow.evaluation.queries import Papers, plain
from citeflow.graph.csr import Csr, build_csr
from citeflow.graph.prepared import map_array

NAMES = "papers.arrow"
WORDS = "title_words.parquet"

SHORTEST_PREFIX = 3
"""Letters from which on the last word of a search may be the beginning of one."""

MAX_PREFIXED = 1_000
"""Words that begin with it, at most; the first ones in alphabetical order."""

TITLES = 1 << 16
"""Titles that are divided into words at once."""

NEARBY = 50
"""Identifiers before and behind an unknown one that may be suggested for it."""


def write(
    folder: Path, ids: pa.ChunkedArray, titles: pa.ChunkedArray | None, cited_N: np.ndarray
) -> None:
    """Write names and their indices into a folder that is being made.

    Args:
        folder: where to.
        ids: of each paper.
        titles: of each paper, where there are any.
        cited_N: citations of each paper; papers with a word are listed by it.
    """
    names = ids.cast(pa.large_string()).combine_chunks()
    columns: dict[str, object] = {"id": names}
    files.save_array(folder / "id_order.npy", pc.sort_indices(names).to_numpy().astype(np.int32))
    if titles is not None:
        columns["title"] = titles.cast(pa.large_string()).combine_chunks()
        _write_words(folder, columns["title"], cited_N)
    files.save_ipc(folder / NAMES, columns)


def _write_words(folder: Path, titles: pa.LargeStringArray, cited_N: np.ndarray) -> None:
    """Write the words of all titles, and the papers that have each, the most cited first."""
    by_citations_N = np.argsort(-cited_N, kind="stable").astype(np.int32)
    number_of: dict[str, int] = {}
    word_E, place_E = array("i"), array("i")
    for first in range(0, len(titles), TITLES):
        chunk = titles.take(pa.array(by_citations_N[first : first + TITLES]))
        for place, title in enumerate(chunk.to_pylist(), first):
            found = [number_of.setdefault(word, len(number_of)) for word in words_of(title)]
            word_E.extend(found)
            place_E.extend([place] * len(found))
    words = sorted(number_of)
    order_W = np.array([number_of[word] for word in words], dtype=np.int64)
    rank_W = np.empty(len(words), dtype=np.int32)
    rank_W[order_W] = np.arange(len(words))
    size = max(len(words), len(titles))
    rows = build_csr(rank_W[np.asarray(word_E)], np.asarray(place_E), size)
    files.save_table(folder / WORDS, {"word": pa.array(words, pa.large_string())})
    files.save_array(folder / "title_ptr.npy", rows.rowptr_N1[: len(words) + 1])
    files.save_array(folder / "title_index.npy", rows.col_E)
    files.save_array(folder / "title_order.npy", by_citations_N)


def words_of(title: str) -> list[str]:
    """Return the words of a title, in lower case."""
    return re.findall(r"\w+", unicodedata.normalize("NFC", title).casefold())


class Column(Sequence[Any]):
    """A column of a mapped file, read value by value; pyarrow takes several times as long."""

    def __init__(self, values: pa.LargeStringArray, kind: type = str) -> None:
        """Take an array of text without nulls, and the kind of value that each is."""
        _, offsets, text = values.buffers()
        self._offset_N1 = np.frombuffer(offsets, np.int64)[values.offset :]
        self._text = memoryview(text or b"")
        self._len = len(values)
        self._kind = kind

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._len

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> list[Any]: ...
    def __getitem__(self, row: int | slice) -> Any:
        """Read a value, or some."""
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(self._len))]
        value = str(self._text[self._offset_N1[row] : self._offset_N1[row + 1]], "utf-8")
        return self._kind(value)


class StoredPapers(Papers):
    """Names of papers, mapped from files."""

    def __init__(self, folder: Path, *, are_numbers: bool) -> None:
        """Map the files.

        Args:
            folder: of the ServingIndex.
            are_numbers: identifiers are numbers.

        Raises:
            CorruptError: a file is not what it should be.
        """
        with reading(folder / NAMES):
            table = pa.ipc.open_file(pa.memory_map(str(folder / NAMES))).read_all()
            names = table.column("id").chunk(0)
            has_titles = "title" in table.column_names
            self.titles = Column(table.column("title").chunk(0)) if has_titles else None
        self.ids = Column(names, int if are_numbers else str)
        self._names = Column(names)
        self._order_N = np.asarray(map_array(folder, "id_order"))
        self._words: list[str] = []
        if has_titles:
            with reading(folder / WORDS):
                self._words = pyarrow.parquet.read_table(folder / WORDS)["word"].to_pylist()
            self._rows = Csr(
                np.asarray(map_array(folder, "title_ptr")),
                np.asarray(map_array(folder, "title_index")),
            )
            self._by_citations_N = np.asarray(map_array(folder, "title_order"))

    def find(self, paper: str) -> int | None:
        """Return the row of an identifier; None if no paper has it."""
        name = paper.strip()
        for each in dict.fromkeys((name, unicodedata.normalize("NFC", name))):
            place = self._place(each)
            if place < len(self._order_N) and self._name_at(place) == each:
                return int(self._order_N[place])
        return None

    def suggest(self, paper: str) -> str:
        """Ask whether one of the identifiers is meant that come before or behind an unknown one."""
        name = paper.strip()
        place = self._place(name)
        near = range(max(0, place - NEARBY), min(len(self._order_N), place + NEARBY))
        close = difflib.get_close_matches(name[:200], [self._name_at(each) for each in near], n=3)
        return f"did you mean {' or '.join(close)}?" if close else ""

    def find_title(self, title: str) -> int | None:
        """Return the row of the first paper with a title, whatever its case and punctuation."""
        if self.titles is None or not plain(title):
            return None
        same = [
            row
            for row in self._with_words(words_of(title), is_prefix=False).tolist()
            if plain(self.titles[row]) == plain(title)
        ]
        return min(same, default=None)

    def search(self, text: str, limit: int) -> list[int]:
        """Return rows: that with this identifier, then those with all words, most cited first.

        Args:
            text: words of a title; the last one may be the beginning of a word.
            limit: how many, at most.
        """
        row = self.find(text)
        words = words_of(text)
        found = [] if row is None else [row]
        if words and self._words:
            found += self._with_words(words, is_prefix=not text[-1:].isspace())[:limit].tolist()
        return list(dict.fromkeys(found))[:limit]

    def _with_words(self, words: list[str], *, is_prefix: bool) -> np.ndarray:
        """Return the rows of titles that have all words, the most cited first."""
        *whole, last = words
        lists = [self._places(word, is_prefix=False) for word in dict.fromkeys(whole)]
        lists.append(self._places(last, is_prefix=is_prefix and len(last) >= SHORTEST_PREFIX))
        lists.sort(key=len)
        found = lists[0]
        for other in lists[1:]:
            if not len(other):
                return other
            at = np.minimum(np.searchsorted(other, found), len(other) - 1)
            found = found[other[at] == found]
        rows: np.ndarray = self._by_citations_N[found]
        return rows

    def _places(self, word: str, *, is_prefix: bool) -> np.ndarray:
        """Return the places, by citations, of papers with a word, ascending."""
        first = bisect.bisect_left(self._words, word)
        if not is_prefix:
            is_there = first < len(self._words) and self._words[first] == word
            return self._rows.row(first) if is_there else np.empty(0, dtype=np.int32)
        end = bisect.bisect_left(self._words, word + "\U0010ffff")
        end = min(end, first + MAX_PREFIXED)
        pointers = self._rows.rowptr_N1
        return np.unique(self._rows.col_E[pointers[first] : pointers[end]])

    def _place(self, name: str) -> int:
        return bisect.bisect_left(range(len(self._order_N)), name, key=self._name_at)

    def _name_at(self, place: int) -> str:
        name: str = self._names[int(self._order_N[place])]
        return name
