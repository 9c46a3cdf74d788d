"""Citation folders with one fault each, and what the one line about it must say.

`Case.build` gets a path at which nothing lies yet. Most cases change one file of a small folder in which all is well.
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
CITATIONS = [
    "citing,cited",
    *(f"p{row},p{row - step}" for row in range(8) for step in (1, 2) if row >= step),
]
DATA_WRONG, NOT_FOUND = 65, 66


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    name: str
    build: Callable[[Path], None]
    exit_code: int
    fragments: tuple[str, ...]


def write_good_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_lines(folder / "papers.csv", PAPERS)
    write_lines(folder / "citations.csv", CITATIONS)


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_line(name: str, number: int, text: str) -> Callable[[Path], None]:
    """The good folder with one line of a CSV file, counted from 1, put in the place of another."""

    def build(folder: Path) -> None:
        write_good_folder(folder)
        lines = (folder / name).read_text().splitlines()
        lines[number - 1] = text
        write_lines(folder / name, lines)

    return build


def with_file(
    name: str, content: bytes | list[str] | None, *, without: str = ""
) -> Callable[[Path], None]:
    """The good folder with a file added, replaced or (None) taken away, and without another one."""

    def build(folder: Path) -> None:
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


def with_array(array: np.ndarray, *, keep_bytes: int | None = None) -> Callable[[Path], None]:
    """The good folder with features.npy, of which only the first bytes may be left."""

    def build(folder: Path) -> None:
        write_good_folder(folder)
        np.save(folder / "features.npy", array, allow_pickle=True)
        if keep_bytes is not None:
            content = (folder / "features.npy").read_bytes()
            (folder / "features.npy").write_bytes(content[:keep_bytes])

    return build


def with_parquet(stem: str, columns: dict[str, object]) -> Callable[[Path], None]:
    """The good folder with one table as Parquet in the place of the CSV file."""

    def build(folder: Path) -> None:
        write_good_folder(folder)
        (folder / f"{stem}.csv").unlink()
        pq.write_table(pa.table(columns), folder / f"{stem}.parquet")

    return build


def packed(lines: list[str]) -> bytes:
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def nothing(folder: Path) -> None:
    """Leave the path without a folder."""


def a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")


def a_twin_of_papers(folder: Path) -> None:
    write_good_folder(folder)
    pq.write_table(pa.table({"id": ["p0", "p1"]}), folder / "papers.parquet")


def array_with(value: float) -> np.ndarray:
    x_NF = np.ones((8, 3), np.float32)
    x_NF[4, 1] = value
    return x_NF


def dated(*dates: str) -> list[str]:
    days = [*dates, *(f"2001-01-{day:02}" for day in range(1, 9))][:8]
    return ["id,date", *(f"p{row},{day}" for row, day in enumerate(days))]


def bad(
    name: str, build: Callable[[Path], None], *fragments: str, exit_code: int = DATA_WRONG
) -> Case:
    return Case(name=name, build=build, exit_code=exit_code, fragments=fragments)


WITHOUT_ID = ["paper,year", "p0,1990", "p1,1991"]
LONG_GZIP = packed(["citing,cited"] + [f"p{row % 7 + 1},p{row % 5}" for row in range(5000)])
BROKEN_HEADER = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': (\n".ljust(118)
PLACES = [
    bad("missing folder", nothing, "no such folder", exit_code=NOT_FOUND),
    bad("folder that is a file", a_file, "this is a file"),
    bad(
        "missing papers",
        with_file("papers.csv", None),
        "table of papers",
        "papers.parquet",
        exit_code=NOT_FOUND,
    ),
    bad(
        "missing citations",
        with_file("citations.csv", None),
        "table of citations",
        exit_code=NOT_FOUND,
    ),
    bad(
        "papers as csv and parquet",
        a_twin_of_papers,
        "more than one table",
        "papers.csv, papers.parquet",
    ),
    bad(
        "citations as csv and gzip",
        with_file("citations.csv.gz", packed(CITATIONS)),
        "citations.csv, citations.csv.gz",
    ),
]
FILES = [
    bad("empty papers", with_file("papers.csv", b""), "papers.csv is empty", "0 bytes"),
    bad("empty citations", with_file("citations.csv", b""), "citations.csv is empty"),
    bad(
        "empty parquet file",
        with_file("papers.parquet", b"", without="papers.csv"),
        "papers.parquet is empty",
    ),
    bad("header-only papers", with_file("papers.csv", PAPERS[:1]), "papers.csv has no rows"),
    bad(
        "header-only citations",
        with_file("citations.csv", CITATIONS[:1]),
        "citations.csv has no rows",
    ),
    bad(
        "parquet without rows",
        with_parquet("citations", {"citing": [], "cited": []}),
        "citations.parquet has no rows",
    ),
    bad(
        "truncated gzip papers",
        with_file("papers.csv.gz", packed(PAPERS)[:-12], without="papers.csv"),
        "papers.csv.gz is cut short",
    ),
    bad(
        "truncated gzip citations",
        with_file("citations.csv.gz", LONG_GZIP[: len(LONG_GZIP) // 2], without="citations.csv"),
        "citations.csv.gz is cut short",
    ),
    bad(
        "gzip with a wrong checksum",
        with_file(
            "citations.csv.gz", LONG_GZIP[:-8] + bytes(4) + LONG_GZIP[-4:], without="citations.csv"
        ),
        "citations.csv.gz is not a valid gzip file",
    ),
    bad(
        "plain text named gzip",
        with_file("papers.csv.gz", "\n".join(PAPERS).encode(), without="papers.csv"),
        "papers.csv.gz is not a valid gzip file",
        "or name it papers.csv",
    ),
    bad(
        "ragged papers",
        with_line("papers.csv", 4, "p2,1992,0.2,extra"),
        "papers.csv, line 4",
        "3 values",
        "found 4",
    ),
    bad(
        "ragged citations",
        with_line("citations.csv", 6, "p3"),
        "citations.csv, line 6",
        "2 values",
        "found 1",
    ),
    bad(
        "invalid UTF-8",
        with_file("papers.csv", b"id,title\np0,ok\np1,caf\xe9\n"),
        "papers.csv, line 3",
        "UTF-8",
        "caf",
    ),
    bad(
        "UTF-16",
        with_file("papers.csv", "id\np0\np1\n".encode("utf-16")),
        "papers.csv, line 1",
        "UTF-8",
    ),
    bad("open quote", with_line("papers.csv", 5, '"p3,1993,0.3'), "papers.csv, line 5"),
    bad(
        "open quote in the last column",
        with_file("papers.csv", ["id,title", "p0,one", 'p1,"two', "p2,three"]),
        "papers.csv, line 3",
        "never closed",
    ),
    bad(
        "text named parquet",
        with_file("papers.parquet", b"id\np0\np1\n", without="papers.csv"),
        "papers.parquet",
    ),
]
COLUMNS = [
    bad(
        "missing id column",
        with_file("papers.csv", WITHOUT_ID),
        "papers.csv has no column: id",
        "'paper', 'year'",
    ),
    bad(
        "missing citing column",
        with_line("citations.csv", 1, "source,cited"),
        "citations.csv has no column: citing",
    ),
    bad(
        "missing cited column",
        with_line("citations.csv", 1, "citing,target"),
        "citations.csv has no column: cited",
    ),
    bad(
        "semicolons",
        with_file("papers.csv", ["id;year", "p0;1990"]),
        "papers.csv has no column: id",
        "'id;year'",
    ),
    bad(
        "duplicate column",
        with_line("papers.csv", 1, "id,w1,w1"),
        "papers.csv",
        "same name",
        "'w1'",
    ),
    bad(
        "year and date",
        with_file("papers.csv", ["id,year,date", "a,1,2001-01-01", "b,1,2001-01-01"]),
        "year, date",
    ),
    bad(
        "ids that are floats",
        with_parquet("papers", {"id": [0.5, 1.5]}),
        "papers.parquet",
        "'id' has the wrong type: double",
    ),
    bad(
        "citations that are floats",
        with_parquet("citations", {"citing": [1.0], "cited": [0.0]}),
        "citations.parquet",
        "'citing' has the wrong type: double",
    ),
    bad(
        "titles that are numbers",
        with_parquet("papers", {"id": ["p0", "p1"], "title": [1, 2]}),
        "'title'",
        "int64",
    ),
    bad(
        "years that are lists",
        with_parquet("papers", {"id": ["a", "b"], "year": [[1], [2]]}),
        "'year'",
        "list",
    ),
    bad(
        "dates that are numbers",
        with_parquet("papers", {"id": ["a", "b"], "date": [1, 2]}),
        "'date'",
        "int64",
    ),
]
IDS = [
    bad(
        "duplicate id",
        with_line("papers.csv", 7, "p1,1995,0.5"),
        "papers.csv, line 7",
        "'p1'",
        "first on line 3",
    ),
    bad(
        "duplicate ids in parquet",
        with_parquet("papers", {"id": [7, 8, 7, 8]}),
        "papers.parquet, row 3",
        "7, first on row 1 (and 1 more)",
    ),
    bad(
        "empty id",
        with_line("papers.csv", 5, ",1993,0.3"),
        "papers.csv, line 5",
        "'id' has no value",
    ),
    bad(
        "null id in parquet",
        with_parquet("papers", {"id": [0, None]}),
        "papers.parquet, row 2",
        "'id' has no value",
    ),
    bad("one paper", with_file("papers.csv", PAPERS[:2]), "papers.csv has one paper: 'p0'"),
    bad(
        "unknown id",
        with_line("citations.csv", 5, "p2,x9"),
        "citations.csv, line 5",
        "'cited' is not an id of papers.csv: 'x9' (1 such citation)",
        "data.unknown=drop",
    ),
    bad(
        "empty citing",
        with_line("citations.csv", 3, ",p1"),
        "citations.csv, line 3",
        "'citing' is not an id",
    ),
    bad(
        "unknown id of many lines",
        with_line("citations.csv", 3, '"x\ny",p1'),
        "citations.csv, line 3",
        r"'x\ny'",
    ),
    bad(
        "unknown row in parquet",
        with_parquet(
            "citations", {"citing": ["p1", "p2", "q", "q"], "cited": ["p0", "p0", "p0", "p0"]}
        ),
        "citations.parquet, row 3",
        "'q' (2 such citations)",
    ),
]
TIMES = [
    bad(
        "bad year",
        with_line("papers.csv", 3, "p1,199x,0.1"),
        "papers.csv, line 3",
        "'year' is not a number",
        "'199x'",
    ),
    bad(
        "year out of range",
        with_line("papers.csv", 9, "p7,19970,0.7"),
        "papers.csv, line 9",
        "not a year",
        "'19970'",
    ),
    bad(
        "year with a fraction",
        with_line("papers.csv", 2, "p0,1990.5,0.1"),
        "papers.csv, line 2",
        "'1990.5'",
    ),
    bad(
        "some years missing",
        with_line("papers.csv", 6, "p4,,0.4"),
        "papers.csv, line 6",
        "'year' has no value",
    ),
    bad(
        "bad date",
        with_file("papers.csv", dated("2001-01-01", "01/02/2001")),
        "papers.csv, line 3",
        "'01/02/2001'",
    ),
    bad(
        "day that is no day",
        with_file("papers.csv", dated("2001-02-30")),
        "papers.csv, line 2",
        "'2001-02-30'",
    ),
    bad(
        "date out of range",
        with_file("papers.csv", dated("0000-01-01")),
        "papers.csv, line 2",
        "'0000-01-01'",
    ),
    bad(
        "date out of range in parquet",
        with_parquet(
            "papers",
            {"id": ["a", "b"], "date": pa.array([0, 2_932_897], pa.int32()).cast(pa.date32())},
        ),
        "papers.parquet, row 2",
        "'date' is out of range: '10000-01-01'",
    ),
    bad(
        "some dates missing",
        with_file("papers.csv", dated("2001-01-01", "", "")),
        "papers.csv, line 3",
        "'date' has no value: 2 of 8 are empty",
    ),
    bad(
        "null date in parquet",
        with_parquet("papers", {"id": ["a", "b"], "date": [date(2001, 1, 1), None]}),
        "papers.parquet, row 2",
        "'date' has no value: 1 of 2",
    ),
]
NUMBERS = [
    bad(
        "bad number",
        with_line("papers.csv", 4, "p2,1992,o.2"),
        "papers.csv, line 4",
        "'w1' is not a number",
        "'o.2'",
    ),
    bad(
        "missing number",
        with_line("papers.csv", 4, "p2,1992,"),
        "papers.csv, line 4",
        "'w1' has no value",
    ),
    bad(
        "NaN in a column",
        with_line("papers.csv", 8, "p6,1996,NaN"),
        "papers.csv, line 8",
        "'w1' is not a finite",
    ),
    bad(
        "infinity in a column",
        with_line("papers.csv", 2, "p0,1990,-inf"),
        "papers.csv, line 2",
        "'w1'",
        "-inf",
    ),
    bad(
        "number beyond float32",
        with_line("papers.csv", 2, "p0,1990,1e39"),
        "papers.csv, line 2",
        "'w1'",
        "1e+39",
    ),
    bad(
        "NaN in features.npy",
        with_array(array_with(np.nan)),
        "features.npy, row 5, column 2",
        "not a finite",
        "nan",
    ),
    bad(
        "infinity in features.npy",
        with_array(array_with(np.inf)),
        "features.npy, row 5, column 2",
        "inf",
    ),
    bad(
        "features.npy too short", with_array(np.ones((7, 2))), "features.npy", "8 papers", "7 rows"
    ),
    bad("features.npy too long", with_array(np.ones((9, 2))), "features.npy", "8 papers", "9 rows"),
    bad(
        "features.npy with one axis",
        with_array(np.ones(8)),
        "features.npy",
        "[papers, features]",
        "(8,)",
    ),
    bad("features.npy without columns", with_array(np.ones((8, 0))), "features.npy"),
    bad(
        "features.npy of objects", with_array(np.array([[{}]] * 8)), "features.npy is not a usable"
    ),
    bad(
        "features.npy of complex numbers",
        with_array(np.ones((8, 2), complex)),
        "features.npy",
        "complex128",
    ),
    bad("features.npy of text", with_array(np.full((8, 2), "a")), "features.npy", "real numbers"),
    bad(
        "features.npy cut in the data",
        with_array(np.ones((8, 2)), keep_bytes=200),
        "features.npy is not a usable",
    ),
    bad(
        "features.npy cut in the header",
        with_array(np.ones((8, 2)), keep_bytes=40),
        "features.npy is not a usable",
    ),
    bad(
        "features.npy with a broken header",
        with_file("features.npy", BROKEN_HEADER),
        "features.npy is not a usable",
    ),
    bad("features.npy of 0 bytes", with_file("features.npy", b""), "features.npy is not a usable"),
    bad(
        "features.npy that is no array",
        with_file("features.npy", b"PK\x03\x04 zip"),
        "features.npy is not a usable",
    ),
]
CASES = [*PLACES, *FILES, *COLUMNS, *IDS, *TIMES, *NUMBERS]
