"""Citation folders with one fault each, and the words that the error must have.

`Case.build` gets a path where nothing exists yet. Most change one file of a small good folder.
"""

import gzip
import io
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


def without(name):
    return lambda folder: (write_good_folder(folder) / name).unlink()


def with_line(name, number, text):
    """The good folder with another line, counted from 1, in a CSV file."""

    def build(folder):
        lines = (write_good_folder(folder) / name).read_text().splitlines()
        lines[number - 1] = text
        write_lines(folder / name, lines)

    return build


def with_file(name, content, *, instead_of=""):
    """The good folder with a file added or replaced, and without another one."""

    def build(folder):
        write_good_folder(folder)
        if instead_of:
            (folder / instead_of).unlink()
        (folder / name).write_bytes(content)

    return build


def with_parts(name, part):
    """The good folder with a folder in place of the papers, as Spark writes it."""

    def build(folder):
        (write_good_folder(folder) / "papers.csv").unlink()
        (folder / name).mkdir()
        (folder / name / part).write_text("id\n1\n2\n")

    return build


def with_parquet(stem, columns):
    """The good folder with one table as Parquet instead of CSV."""
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return with_file(f"{stem}.parquet", content.getvalue(), instead_of=f"{stem}.csv")


def packed(lines):
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def array_with(value):
    x_NF = np.ones((8, 3), np.float32)
    x_NF[4, 1] = value
    return x_NF


AB = ["a", "b"]
LATE = pa.array([0, 2_932_897], pa.int32()).cast(pa.date32())
NULL = [date(2001, 1, 1), None]
FLOATS = {"citing": [1.5], "cited": [0.0]}
STRANGERS = {"citing": ["p1", "p2", "q", "q"], "cited": ["p0"] * 4}
LONG_GZIP = packed(["citing,cited"] + [f"p{row % 7 + 1},p{row % 5}" for row in range(5000)])
WRONG_SUM = LONG_GZIP[:-8] + bytes(4) + LONG_GZIP[-4:]
BROKEN_HEADER = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': (\n".ljust(118)

# Text tables: name, what is changed, and the words of the message, with " ... " between those that
# other words may separate.
LINES = r"""
ragged papers | papers.csv 4 | p2,1992,0.2,extra | papers.csv, line 4 ... 3 values ... found 4
ragged citations | citations.csv 6 | p3 | citations.csv, line 6 ... 2 values ... found 1
open quote | papers.csv 5 | "p3,1993,0.3 | papers.csv, line 5
missing citing | citations.csv 1 | source,cited | has no column: citing ... rename 'source'
missing cited | citations.csv 1 | citing,target | has no column: cited
duplicate column | papers.csv 1 | id,w1,w1 | papers.csv ... same name: 'w1'
duplicate id | papers.csv 7 | p1,1995,0.5 | papers.csv, line 7 ... 'p1' ... first on line 3
empty id | papers.csv 5 | ,1993,0.3 | papers.csv, line 5 ... 'id' has no value
unknown id | citations.csv 5 | p2,x9 | line 5 ... 'cited' is not an id of papers.csv: 'x9' (1 such
unknown id, hint | citations.csv 5 | p2,x9 | data.unknown=drop
other case | citations.csv 5 | P2,p0 | 'P2' (1 such ... upper and lower case only: 'p2'
blank inside | citations.csv 5 | p\xa02,p0 | invisible characters only: 'p2'
other kind | citations.csv 5 | https://x.org/p2,p0 | the part before it only ... 'p2'
empty citing | citations.csv 3 | ,p1 | citations.csv, line 3 ... 'citing' is not an id
id of two lines | citations.csv 3 | "x\ny",p1 | citations.csv, line 3 ... 'x\ny'
bad year | papers.csv 3 | p1,199x,0.1 | line 3 ... 'year' is not a number ... '199x'
late year | papers.csv 9 | p7,19970,0.7 | papers.csv, line 9 ... not a year ... '19970'
fraction of a year | papers.csv 2 | p0,1990.5,0.1 | papers.csv, line 2 ... '1990.5'
some years missing | papers.csv 6 | p4,,0.4 | line 6 ... 'year' has no value ... without_date=drop
year of pandas | papers.csv 6 | p4,NaN,0.4 | line 6 ... 'year' has no value: 1 of 8 are empty
bad number | papers.csv 4 | p2,1992,o.2 | line 4 ... 'w1' is not a number ... 'o.2'
missing number | papers.csv 4 | p2,1992, | papers.csv, line 4 ... 'w1' has no value
NaN in a column | papers.csv 8 | p6,1996,NaN | papers.csv, line 8 ... 'w1' is not a finite
infinity in a column | papers.csv 2 | p0,1990,-inf | papers.csv, line 2 ... 'w1' ... -inf
number beyond float32 | papers.csv 2 | p0,1990,1e39 | papers.csv, line 2 ... 'w1' ... 1e+39
"""
TABLES = r"""
empty papers | papers.csv | | papers.csv is empty ... 0 bytes
empty citations | citations.csv | | citations.csv is empty
header-only papers | papers.csv | id,year\n | papers.csv has no rows
header-only citations | citations.csv | citing,cited\n | citations.csv has no rows
invalid UTF-8 | papers.csv | id,title\np0,ok\np1,caf\xe9\n | papers.csv, line 3 ... UTF-8 ... caf
cut UTF-16 | papers.csv | \xff\xfei\x00d\x00\n\x00p\x000\x00\n | papers.csv ... truncated data
open last quote | papers.csv | id,title\np0,a\np1,"b\np2,c\n | papers.csv, line 3 ... never closed
missing id | papers.csv | paper,year\np0,1990\n | papers.csv has no column: id ... 'paper', 'year'
blanks | papers.csv | id year\np0 1990\n | no column: id, among 'id year' ... separated by blanks?
no header | papers.csv | p0,1990\np1,1991\n | no column: id, among 'p0', '1990' ... no header line?
no header, equal | papers.csv | p0,1,1\np1,0,1\n | no column: id ... no header line?
other name | papers.csv | paper_id,y\n1,2\n2,3\n | no column: id ... rename 'paper_id'
escaped quotes | papers.csv | id,t\na,"\\"x"\nb,"y", z\n | line 3: 2 values expected: found 3
year and date | papers.csv | id,year,date\na,1,2001-01-01\nb,1,2001-01-01\n | year, date
one paper | papers.csv | id\np0\n | papers.csv has one paper: 'p0'
bad date | papers.csv | id,date\na,2001-01-01\nb,01/02/2001\n | line 3 ... '01/02/2001'
30 February | papers.csv | id,date\na,2001-02-30\nb,2001-01-01\n | line 2 ... '2001-02-30'
date before year 1 | papers.csv | id,date\na,0000-01-01\nb,2001\n | line 2 ... '0000-01-01'
some dates missing | papers.csv | id,date\na,\nb,2001\n | 'date' has no value: 1 of 2 are empty
no array | features.npy | PK\x03\x04 zip | features.npy is not a usable
empty array | features.npy | | features.npy is not a usable
"""
INSTEAD = {
    ("empty parquet", "papers.parquet", b""): "papers.parquet is empty",
    ("text named parquet", "papers.parquet", b"id\np0\np1\n"): "papers.parquet",
    ("cut gzip", "papers.csv.gz", packed(PAPERS)[:-12]): "papers.csv.gz is cut short",
    (
        "cut long gzip",
        "citations.csv.gz",
        LONG_GZIP[: len(LONG_GZIP) // 2],
    ): "citations.csv.gz is cut short",
    ("wrong sum", "citations.csv.gz", WRONG_SUM): "citations.csv.gz is not a valid gzip file",
    ("no gzip", "papers.csv.gz", b"id\n"): "not a valid gzip file ... or name it papers.csv",
}
PARQUET = {
    "without rows": ("citations", {"citing": [], "cited": []}, "citations.parquet has no rows"),
    "float ids": (
        "papers",
        {"id": [0.5, 1.5]},
        "papers.parquet ... 'id' has the wrong type: double",
    ),
    "float citing": (
        "citations",
        FLOATS,
        "citations.parquet ... 'citing' has the wrong type: double",
    ),
    "numbers as titles": ("papers", {"id": AB, "title": [1, 2]}, "'title' ... int64"),
    "lists as years": ("papers", {"id": AB, "year": [[1], [2]]}, "'year' ... list"),
    "numbers as dates": ("papers", {"id": AB, "date": [1, 2]}, "'date' ... int64"),
    "duplicate ids": ("papers", {"id": [7, 8, 7, 8]}, "row 3 ... 7, first on row 1 (and 1 more)"),
    "large float ids": (
        "papers",
        {"id": [1.0, 2.0**53]},
        "'id' has the wrong type ... lost digits",
    ),
    "null id": ("papers", {"id": [0, None]}, "papers.parquet, row 2 ... 'id' has no value"),
    "unknown row": ("citations", STRANGERS, "citations.parquet, row 3 ... 'q' (2 such citations)"),
    "late date": ("papers", {"id": AB, "date": LATE}, "row 2 ... out of range: '10000-01-01'"),
    "bytes as years": ("papers", {"id": AB, "year": [None, b"1"]}, "'year' has the wrong type"),
    "null date": ("papers", {"id": AB, "date": NULL}, "row 2 ... 'date' has no value: 1 of 2"),
}
ARRAYS = {
    "NaN": (array_with(np.nan), "features.npy, row 5, column 2 ... not a finite ... nan"),
    "infinity": (array_with(np.inf), "features.npy, row 5, column 2 ... inf"),
    "too short": (np.ones((7, 2)), "features.npy ... 8 papers ... 7 rows"),
    "too long": (np.ones((9, 2)), "features.npy ... 8 papers ... 9 rows"),
    "one axis": (np.ones(8), "features.npy ... [papers, features] ... (8,)"),
    "no columns": (np.ones((8, 0)), "features.npy"),
    "objects": (np.array([[{}]] * 8), "features.npy is not a usable"),
    "complex": (np.ones((8, 2), complex), "features.npy ... complex128"),
    "text": (np.full((8, 2), "a"), "features.npy ... real numbers"),
    "cut": (npy(np.ones((8, 2)))[:200], "features.npy is not a usable"),
    "cut in the header": (npy(np.ones((8, 2)))[:40], "features.npy is not a usable"),
    "broken header": (BROKEN_HEADER, "features.npy is not a usable"),
}


def case(name, build, words, exit_code=DATA_WRONG):
    return Case(name=name, build=build, words=tuple(words.split(" ... ")), exit_code=exit_code)


def rows(table):
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def unescape(text):
    return text.encode("latin1").decode("unicode_escape")


TWICE = "citations.csv, citations.csv.gz"
CASES = [
    case("missing folder", lambda folder: None, "no such folder", NOT_FOUND),
    case("missing papers", without("papers.csv"), "table of papers ... .parquet", NOT_FOUND),
    case("missing citations", without("citations.csv"), "table of citations", NOT_FOUND),
    case("folder that is a file", lambda folder: folder.write_text("x"), "this is a file"),
    case("two tables", with_file("citations.csv.gz", packed(CITATIONS)), TWICE),
    case("two formats", with_file("papers.parquet", b"PAR1"), "papers.csv, papers.parquet"),
    case("folder of CSV", with_parts("papers.csv", "part-0.csv"), "papers.csv ... it is a folder"),
    case("folder of others", with_parts("papers.parquet", "a.csv"), "other files than Parquet"),
]
for name, place, text, words in rows(LINES):
    file, number = place.split()
    CASES.append(case(name, with_line(file, int(number), unescape(text)), words))
for name, file, text, words in rows(TABLES):
    CASES.append(case(name, with_file(file, unescape(text).encode("latin1")), words))
for (name, file, content), words in INSTEAD.items():
    stem = file.partition(".")[0]
    CASES.append(case(name, with_file(file, content, instead_of=f"{stem}.csv"), words))
for name, (stem, columns, words) in PARQUET.items():
    CASES.append(case(f"parquet, {name}", with_parquet(stem, columns), words))
for name, (array, words) in ARRAYS.items():
    content = array if isinstance(array, bytes) else npy(array)
    CASES.append(case(f"array, {name}", with_file("features.npy", content), words))
