"""The parts that all importers share: what a source holds, and the stream that is read of it.

An importer is a pair of functions. `sniff` looks at the beginning of the files and says how sure it
is; `read` yields papers and citations as Arrow record batches, so that memory does not grow with
the source. Ids are text, as the source has them.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import MissingPackageError

EXAMPLES = 3
"""Rows that are shown of those that are dropped for one reason."""

MAX_NAMES = 10

CERTAIN = 100
LIKELY = 60
POSSIBLE = 30


@dataclass(frozen=True, slots=True)
class Evidence:
    """A guess at the format of a source."""

    confidence: int
    """From 1 to 100; the most confident importer reads the source."""

    because: str
    """What was seen, for `citeflow inspect`."""


@dataclass(frozen=True, slots=True)
class Papers:
    """A batch of papers.

    `id` is text; `title`, `abstract` and `date` (ISO, or a bare year) are text with nulls; every
    other column is left to the reader of the citation folder. All batches have one schema.
    """

    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Citations:
    """A batch of citations: `citing` and `cited`, text; a row with a null is dropped."""

    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Features:
    """All features of a source that has them as an array of its own, by row of papers."""

    array: object


Stream = Iterator[Papers | Citations | Features]


@dataclass(slots=True)
class Notes:
    """The rows and columns that were not taken over, and remarks on the rest."""

    dropped: dict[str, int] = field(default_factory=dict)
    """Number of rows, by reason."""

    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first of them, by reason."""

    ignored: dict[str, str] = field(default_factory=dict)
    """Reason, by column or file."""

    remarks: list[str] = field(default_factory=list)

    names: dict[str, str] = field(default_factory=dict)
    """Names that the source has for columns of ours, and for our two tables."""

    def drop(self, reason: str, examples: Sequence[object], count: int | None = None) -> None:
        """Count rows that are dropped; the first ones are kept to be shown."""
        count = len(examples) if count is None else count
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            shown = self.examples.setdefault(reason, [])
            shown += [str(example)[:80] for example in examples[: EXAMPLES - len(shown)]]

    def ignore(self, name: str, reason: str) -> None:
        """Name a column or a file that is not read."""
        self.ignored.setdefault(name, reason)

    def name_table(self, table: str, source: Source, file: SourceFile) -> None:
        """Note the file of a folder that a table of ours is read of."""
        if source.path.is_dir():
            self.names[f"{table}.parquet"] = str(file.path.relative_to(source.path))

    def ignore_files(self, source: Source, read: Sequence[SourceFile], reason: str) -> None:
        """Name the files that are not read, the first ones where there are many."""
        names = [file.path.name for file in source.files if file not in set(read)]
        for name in names[:MAX_NAMES]:
            self.ignore(name, reason)
        if len(names) > MAX_NAMES:
            self.ignore(f"{len(names) - MAX_NAMES:,} more files", reason)

    def remark(self, text: str) -> None:
        """Add a sentence, once."""
        if text not in self.remarks:
            self.remarks.append(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """A format, and how it is recognized and read."""

    name: str
    """For manifests and `--json`."""

    title: str
    """For people."""

    sniff: Callable[[Source], Evidence | None]
    read: Callable[[Source, Notes], Stream]


def library(name: str) -> Any:
    """Import a package that only some formats need.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        hint = "pip install '.[import]' in a checkout of citeflow"
        raise MissingPackageError("package is not installed", name, hint=hint) from None


def papers(
    ids: Iterable[object],
    *,
    title: Iterable[object] | None = None,
    abstract: Iterable[object] | None = None,
    date: Iterable[object] | None = None,
    **others: Iterable[object] | None,
) -> Papers:
    """Make a batch of papers of lists or Arrow arrays of text."""
    columns = {"id": ids, "title": title, "abstract": abstract, "date": date, **others}
    given = {name: text(values) for name, values in columns.items() if values is not None}
    return Papers(pa.RecordBatch.from_pydict(given))


def citations(citing: Iterable[object], cited: Iterable[object]) -> Citations:
    """Make a batch of citations of lists or Arrow arrays of text."""
    return Citations(pa.RecordBatch.from_pydict({"citing": text(citing), "cited": text(cited)}))


def text(values: Iterable[object]) -> pa.Array:
    """Make an Arrow array of text of a list, an array of numpy, or an Arrow array."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if pa.types.is_string(values.type) else values.cast(pa.string())
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        # Numbers among text, or half a surrogate pair, which JSON can hold and UTF-8 cannot.
        return pa.array([_plain(value) for value in values], pa.string())


def _plain(value: object) -> str | None:
    return None if value is None else str(value).encode("utf-8", "replace").decode()
