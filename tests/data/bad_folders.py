"""Citation folders with one fault each, and the words that the error must have.

`Case.build` gets a path where nothing exists yet. Most change one file of a small good folder.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PAPERS = ["id,year,w1", *(f"p{row},{1990 + row},{row / 10}" for row in range(8))]
PAIRS = [(row, row - step) for row in range(8) for step in (1, 2) if row >= step]
CITATIONS = ["citing,cited", *(f"p{citing},p{cited}" for citing, cited in PAIRS)]
DATA_WRONG, NOT_FOUND = 65, 66


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    name: str
    build: Callable[[Path], object]
    words: tuple[str, ...]
    exit_code: int = DATA_WRONG


def write_good_folder(folder):
    folder.mkdir(parents=True)
    write_lines(folder / "papers.csv", PAPERS)
    write_lines(folder / "citations.csv", CITATIONS)
    return folder


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_line(name, number, text):
    """The good folder with another line, counted from 1, in a CSV file."""

    def build(folder):
        lines = (write_good_folder(folder) / name).read_text().splitlines()
        lines[number - 1] = text
        write_lines(folder / name, lines)

    return build


def with_file(name, content, *, without=""):
    """The good folder with a file added, replaced or (None) removed, and without another one."""

    def build(folder):
        write_good_folder(folder)
        if without:
            (folder / without).unlink()
        if content is None:
            (folder / name).unlink()
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            write_lines(folder / name, content)

    return build


def with_array(array, *, keep_bytes=None):
    """The good folder with features.npy, of which only the first bytes may be left."""

    def build(folder):
        path = write_good_folder(folder) / "features.npy"
        np.save(path, array, allow_pickle=True)
        path.write_bytes(path.read_bytes()[:keep_bytes])

    return build


def with_parquet(stem, columns):
    """The good folder with one table as Parquet instead of CSV."""

    def build(folder):
        write_good_folder(folder)
        (folder / f"{stem}.csv").unlink()
        pq.write_table(pa.table(columns), folder / f"{stem}.parquet")

    return build


def a_file(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")


def both_csv_and_parquet(folder):
    write_good_folder(folder)
    pq.write_table(pa.table({"id": ["p0", "p1"]}), folder / "papers.parquet")


def packed(lines):
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def array_with(value):
    x_NF = np.ones((8, 3), np.float32)
    x_NF[4, 1] = value
    return x_NF


def with_dates(*dates):
    days = [*dates, *(f"2001-01-{day:02}" for day in range(1, 9))][:8]
    lines = ["id,date", *(f"p{row},{day}" for row, day in enumerate(days))]
    return with_file("papers.csv", lines)


def instead(name, content):
    """A packed table instead of the plain one."""
    return with_file(name, content, without=f"{name.partition('.')[0]}.csv")


AB = ["a", "b"]
LATE = pa.array([0, 2_932_897], pa.int32()).cast(pa.date32())
LONG_GZIP = packed(["citing,cited"] + [f"p{row % 7 + 1},p{row % 5}" for row in range(5000)])
WRONG_SUM = LONG_GZIP[:-8] + bytes(4) + LONG_GZIP[-4:]
BROKEN_HEADER = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': (\n".ljust(118)
STRANGERS = {"citing": ["p1", "p2", "q", "q"], "cited": ["p0"] * 4}
OPEN_QUOTE = ["id,title", "p0,one", 'p1,"two', "p2,three"]
TWO_TIMES = ["id,year,date", "a,1,2001-01-01", "b,1,2001-01-01"]
LATIN_1 = b"id,title\np0,ok\np1,caf\xe9\n"
UNUSABLE = "features.npy is not a usable"

# The words of a message, " ... " between those that other words may separate.
NOT_THERE = {
    "missing folder": (lambda folder: None, "no such folder"),
    "missing papers": (with_file("papers.csv", None), "table of papers ... papers.parquet"),
    "missing citations": (with_file("citations.csv", None), "table of citations"),
}
FILES = {
    "folder that is a file": (a_file, "this is a file"),
    "csv and parquet": (both_csv_and_parquet, "more than one table ... papers.csv, papers.parquet"),
    "csv and gzip": (
        with_file("citations.csv.gz", packed(CITATIONS)),
        "citations.csv, citations.csv.gz",
    ),
    "empty papers": (with_file("papers.csv", b""), "papers.csv is empty ... 0 bytes"),
    "empty citations": (with_file("citations.csv", b""), "citations.csv is empty"),
    "empty parquet file": (instead("papers.parquet", b""), "papers.parquet is empty"),
    "header-only papers": (with_file("papers.csv", PAPERS[:1]), "papers.csv has no rows"),
    "header-only citations": (
        with_file("citations.csv", CITATIONS[:1]),
        "citations.csv has no rows",
    ),
    "parquet without rows": (
        with_parquet("citations", {"citing": [], "cited": []}),
        "citations.parquet has no rows",
    ),
    "cut gzip papers": (
        instead("papers.csv.gz", packed(PAPERS)[:-12]),
        "papers.csv.gz is cut short",
    ),
    "cut gzip citations": (
        instead("citations.csv.gz", LONG_GZIP[: len(LONG_GZIP) // 2]),
        "citations.csv.gz is cut short",
    ),
    "gzip with a wrong checksum": (
        instead("citations.csv.gz", WRONG_SUM),
        "citations.csv.gz is not a valid gzip file",
    ),
    "plain text named gzip": (
        instead("papers.csv.gz", "\n".join(PAPERS).encode()),
        "papers.csv.gz is not a valid gzip file ... or name it papers.csv",
    ),
    "ragged papers": (
        with_line("papers.csv", 4, "p2,1992,0.2,extra"),
        "papers.csv, line 4 ... 3 values ... found 4",
    ),
    "ragged citations": (
        with_line("citations.csv", 6, "p3"),
        "citations.csv, line 6 ... 2 values ... found 1",
    ),
    "invalid UTF-8": (with_file("papers.csv", LATIN_1), "papers.csv, line 3 ... UTF-8 ... caf"),
    "UTF-16": (
        with_file("papers.csv", "id\np0\np1\n".encode("utf-16")),
        "papers.csv, line 1 ... UTF-8",
    ),
    "open quote": (with_line("papers.csv", 5, '"p3,1993,0.3'), "papers.csv, line 5"),
    "open quote at the end": (
        with_file("papers.csv", OPEN_QUOTE),
        "papers.csv, line 3 ... never closed",
    ),
    "text named parquet": (instead("papers.parquet", b"id\np0\np1\n"), "papers.parquet"),
}
COLUMNS = {
    "missing id": (
        with_file("papers.csv", ["paper,year", "p0,1990", "p1,1991"]),
        "papers.csv has no column: id ... 'paper', 'year'",
    ),
    "missing citing": (with_line("citations.csv", 1, "source,cited"), "has no column: citing"),
    "missing cited": (with_line("citations.csv", 1, "citing,target"), "has no column: cited"),
    "semicolons": (
        with_file("papers.csv", ["id;year", "p0;1990"]),
        "papers.csv has no column: id ... 'id;year'",
    ),
    "duplicate column": (with_line("papers.csv", 1, "id,w1,w1"), "papers.csv ... same name: 'w1'"),
    "year and date": (with_file("papers.csv", TWO_TIMES), "year, date"),
    "float ids": (
        with_parquet("papers", {"id": [0.5, 1.5]}),
        "papers.parquet ... 'id' has the wrong type: double",
    ),
    "float citations": (
        with_parquet("citations", {"citing": [1.0], "cited": [0.0]}),
        "citations.parquet ... 'citing' has the wrong type: double",
    ),
    "numbers as titles": (with_parquet("papers", {"id": AB, "title": [1, 2]}), "'title' ... int64"),
    "lists as years": (with_parquet("papers", {"id": AB, "year": [[1], [2]]}), "'year' ... list"),
    "numbers as dates": (with_parquet("papers", {"id": AB, "date": [1, 2]}), "'date' ... int64"),
}
IDS = {
    "duplicate id": (
        with_line("papers.csv", 7, "p1,1995,0.5"),
        "papers.csv, line 7 ... 'p1' ... first on line 3",
    ),
    "duplicate ids in parquet": (
        with_parquet("papers", {"id": [7, 8, 7, 8]}),
        "papers.parquet, row 3 ... 7, first on row 1 (and 1 more)",
    ),
    "empty id": (
        with_line("papers.csv", 5, ",1993,0.3"),
        "papers.csv, line 5 ... 'id' has no value",
    ),
    "null id": (with_parquet("papers", {"id": [0, None]}), "papers.parquet, row 2 ... 'id' has no"),
    "one paper": (with_file("papers.csv", PAPERS[:2]), "papers.csv has one paper: 'p0'"),
    "unknown id": (
        with_line("citations.csv", 5, "p2,x9"),
        "citations.csv, line 5 ... 'cited' is not an id of papers.csv: 'x9' (1 such citation)"
        " ... data.unknown=drop",
    ),
    "empty citing": (
        with_line("citations.csv", 3, ",p1"),
        "citations.csv, line 3 ... 'citing' is not an id",
    ),
    "id of two lines": (with_line("citations.csv", 3, '"x\ny",p1'), r"line 3 ... 'x\ny'"),
    "unknown row in parquet": (
        with_parquet("citations", STRANGERS),
        "citations.parquet, row 3 ... 'q' (2 such citations)",
    ),
}
TIMES = {
    "bad year": (
        with_line("papers.csv", 3, "p1,199x,0.1"),
        "line 3 ... is not a number ... '199x'",
    ),
    "late year": (with_line("papers.csv", 9, "p7,19970,0.7"), "line 9 ... not a year ... '19970'"),
    "fraction of a year": (with_line("papers.csv", 2, "p0,1990.5,0.1"), "line 2 ... '1990.5'"),
    "some years missing": (with_line("papers.csv", 6, "p4,,0.4"), "line 6 ... 'year' has no value"),
    "bad date": (with_dates("2001-01-01", "01/02/2001"), "papers.csv, line 3 ... '01/02/2001'"),
    "30 February": (with_dates("2001-02-30"), "papers.csv, line 2 ... '2001-02-30'"),
    "date before year 1": (with_dates("0000-01-01"), "papers.csv, line 2 ... '0000-01-01'"),
    "date after year 9999": (
        with_parquet("papers", {"id": AB, "date": LATE}),
        "papers.parquet, row 2 ... 'date' is out of range: '10000-01-01'",
    ),
    "some dates missing": (
        with_dates("2001-01-01", "", ""),
        "papers.csv, line 3 ... 'date' has no value: 2 of 8 are empty",
    ),
    "null date": (
        with_parquet("papers", {"id": AB, "date": [date(2001, 1, 1), None]}),
        "papers.parquet, row 2 ... 'date' has no value: 1 of 2",
    ),
}
NUMBERS = {
    "bad number": (with_line("papers.csv", 4, "p2,1992,o.2"), "line 4 ... not a number ... 'o.2'"),
    "missing number": (with_line("papers.csv", 4, "p2,1992,"), "line 4 ... 'w1' has no value"),
    "NaN": (with_line("papers.csv", 8, "p6,1996,NaN"), "line 8 ... 'w1' is not a finite"),
    "infinity": (with_line("papers.csv", 2, "p0,1990,-inf"), "line 2 ... 'w1' ... -inf"),
    "beyond float32": (with_line("papers.csv", 2, "p0,1990,1e39"), "line 2 ... 'w1' ... 1e+39"),
}
ARRAYS = {
    "NaN in array": (with_array(array_with(np.nan)), "row 5, column 2 ... not a finite ... nan"),
    "infinity in array": (with_array(array_with(np.inf)), "features.npy, row 5, column 2 ... inf"),
    "too short": (with_array(np.ones((7, 2))), "features.npy ... 8 papers ... 7 rows"),
    "too long": (with_array(np.ones((9, 2))), "features.npy ... 8 papers ... 9 rows"),
    "one axis": (with_array(np.ones(8)), "features.npy ... [papers, features] ... (8,)"),
    "no columns": (with_array(np.ones((8, 0))), "features.npy"),
    "objects": (with_array(np.array([[{}]] * 8)), UNUSABLE),
    "complex numbers": (with_array(np.ones((8, 2), complex)), "features.npy ... complex128"),
    "text": (with_array(np.full((8, 2), "a")), "features.npy ... real numbers"),
    "cut in the data": (with_array(np.ones((8, 2)), keep_bytes=200), UNUSABLE),
    "cut in the header": (with_array(np.ones((8, 2)), keep_bytes=40), UNUSABLE),
    "broken header": (with_file("features.npy", BROKEN_HEADER), UNUSABLE),
    "0 bytes": (with_file("features.npy", b""), UNUSABLE),
    "not an array": (with_file("features.npy", b"PK\x03\x04 zip"), UNUSABLE),
}


def cases(faults, exit_code=DATA_WRONG):
    return [
        Case(name=name, build=build, words=tuple(words.split(" ... ")), exit_code=exit_code)
        for name, (build, words) in faults.items()
    ]


CASES = [*cases(NOT_THERE, NOT_FOUND)]
for group in (FILES, COLUMNS, IDS, TIMES, NUMBERS, ARRAYS):
    CASES += cases(group)
