"""Planetoid's text files: `cora.content` and `cora.cites`, likewise citeseer.

A line of `.content` is an id, words as 0 and 1, and a class, which is not read. A line of `.cites`
is `cited citing`, in this order (README of https://linqs-data.soe.ucsc.edu/public/lbc/cora.tgz).
"""

from collections.abc import Iterator

import numpy as np

from citeflow.data.importers import base, delimited
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.delimited import Table
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

MIN_WORDS = 3
BATCH_ROWS = 4096


def _is_content(file: SourceFile) -> Table | None:
    if not file.name.endswith(".content"):
        return None
    table = delimited.look(file)
    return table if table and table.width >= MIN_WORDS + 2 else None


def _is_cites(file: SourceFile) -> Table | None:
    table = delimited.look(file) if file.name.endswith(".cites") else None
    return table if table and table.width == 2 else None


def sniff(source: Source) -> Evidence | None:
    """Recognize the pair of files; here the names count, since two columns could be anything."""
    content, cites = source.where(_is_content), source.where(_is_cites)
    if not cites:
        return None
    seen = ", ".join(file.path.name for file in (*content, *cites))
    return Evidence(CERTAIN, f"{seen}: words and a class by id, cited and citing")


def read(source: Source, notes: Notes) -> Stream:
    """Read words as features, then citations."""
    words: list[np.ndarray] = []
    for file in source.where(_is_content):
        notes.ignore(f"{file.path.name}: last column", "the class of a paper")
        for ids, block in _content(file):
            words.append(block)
            yield base.papers(ids)
    if words:
        yield base.Features(np.concatenate(words))
    for file in source.where(_is_cites):
        table = _is_cites(file)
        assert table is not None
        for batch in delimited.read_table(
            file, table, has_header=False, columns={0: "cited", 1: "citing"}
        ):
            yield base.citations(batch.column("citing"), batch.column("cited"))


def _content(file: SourceFile) -> Iterator[tuple[list[str], np.ndarray]]:
    table = _is_content(file)
    assert table is not None
    width = table.width
    with file.open() as opened:
        ids: list[str] = []
        rows: list[np.ndarray] = []
        for number, line in enumerate(opened, 1):
            values = line.decode().split(table.delimiter)
            if not line.strip():
                continue
            try:
                if len(values) != width:
                    raise ValueError(f"{len(values)} values")
                with np.errstate(over="ignore"):
                    x_F = np.array(values[1:-1], np.float32)
                if not np.isfinite(x_F).all():
                    raise ValueError(values[1 + int(np.argmin(np.isfinite(x_F)))].strip())
                rows.append(x_F)
            except ValueError as error:
                what = f"{file.path}, line {number}: {width - 2} numbers expected"
                raise DataError(what, error) from None
            ids.append(values[0].strip())
            if len(ids) == BATCH_ROWS:
                yield ids, np.stack(rows)
                ids, rows = [], []
        if ids:
            yield ids, np.stack(rows)


IMPORTER = Importer(
    name="planetoid", title="Planetoid's .content and .cites", sniff=sniff, read=read
)
