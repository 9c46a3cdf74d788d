"""Tables of any form and content, by hypothesis: read, or refused in one line, and nothing else.

Run for longer by hand: CITEFLOW_FUZZ_S=600 pytest tests/data/test_fuzzed_tables.py
"""

import bz2
import gzip
import io
import lzma
import os
import re
import resource
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from citeflow import config
from citeflow.data.citation_folder import read_folder
from citeflow.data.datasets import download_dataset
from citeflow.data.importers import registry
from citeflow.errors import CiteflowError
from citeflow.graph.preparation import prepare

FUZZ_S = float(os.environ.get("CITEFLOW_FUZZ_S", "0"))
LIMIT_BYTES = 1 << 30

CONFIGS = [
    config.load(overrides=[f"data.without_date={how}", f"data.unknown={unknown}"])
    for how in ("refuse", "drop", "undated")
    for unknown in ("error", "drop")
]
COLUMNS = ["id", "year", "date", "title", "abstract", "citing", "cited", "publication_year", "w"]
COLUMNS += ["ID", " id ", "cited_by_count", "pub_date", "source", "", "\ufeffid", "embedding"]
IDS = st.sampled_from(
    ["0", "1", "2", "3", "p1", "1.0", "01", "ü", "u\u0308", "W1", " 1", "", "1e3"]
)
DATES = ["1999", "2001-02-30", "1970-01-01", "9999", "20010203", "99999999"]
DATES += ["2001-02-03T23:30:00-05:00", "2001-02-03T99:99:99Z", "2001-02-03T23:30:00+99:99"]
NUMBERS = ["NaN", "nan", "-inf", "1e400", "0,5", "true", "9007199254740993", "1_0", "\u0661"]
NUMBERS += ["9" * 400, "[1, 2]", "[", "[[1]]"]
MARKS = ['"', '""', '\\"', 'a\\"b', "a,b", "a;b", "\t", "\n", "\r", "\0", "\u2028", "\ud7ff", "-"]
MARKS += ["x" * 3000]
VALUES = IDS | st.sampled_from(DATES) | st.sampled_from(NUMBERS) | st.sampled_from(MARKS)
LINES = st.sampled_from(["sep=,", "sep=;", "# comment", "#", "", "\ufeff", "sep=", '"sep=\t"'])
ENCODINGS = st.sampled_from(["utf-8"] * 5 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
ENCODINGS |= st.sampled_from(["utf-32", "latin-1", "utf-7"])
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def usual(name, row):
    """A value that fits a column."""
    values = {"year": 1990 + row, "publication_year": 1990 + row, "title": f"a title {row % 3}"}
    values |= {"citing": (row * 7 + 3) % 8, "cited": row % 3, "embedding": f"[{row}, 1]"}
    dates = dict.fromkeys(("date", "pub_date"), f"{1990 + row}-05-05")
    return (values | dates).get(name.strip().lower(), row)


@st.composite
def headers(draw, required):
    others = draw(st.lists(st.sampled_from(COLUMNS), max_size=3, unique_by=str.lower))
    names = [*required, *(name for name in others if name.strip() not in required)]
    return draw(st.permutations(names)) if draw(st.booleans()) else names


@st.composite
def text_tables(draw, required):
    """Draw the name and the content of a table of text: mostly usual, with a few odd things."""
    header = draw(headers(required))
    delimiter = draw(st.sampled_from([",", ",", "\t", ";", "|", " "]))
    num_rows = draw(st.integers(0, 40))
    rows = [[str(usual(name, row)) for name in header] for row in range(num_rows)]
    for _ in range(draw(st.sampled_from([0, 0, 1, 3])) if rows else 0):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        row[draw(st.integers(0, len(row) - 1))] = draw(VALUES)
        if not draw(st.integers(0, 5)):
            row.append(draw(VALUES))
    lines = draw(st.lists(LINES, max_size=2)) if not draw(st.integers(0, 3)) else []
    lines += [delimiter.join(header)] if draw(st.integers(0, 9)) else []
    quote = draw(st.sampled_from(["{}", "{}", '"{}"']))
    lines += [delimiter.join(quote.format(value) for value in row) for row in rows]
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    content = end.join(lines).encode(draw(ENCODINGS), errors="replace")
    content = draw(damaged(content))
    packer = draw(st.sampled_from([""] * 6 + list(PACKERS)))
    content = PACKERS[packer](content)
    named = packer if draw(st.integers(0, 5)) else ""
    return draw(st.sampled_from([".csv", ".csv", ".tsv"])) + named, draw(damaged(content))


@st.composite
def damaged(draw, content):
    """Flip, cut or insert bytes, seldom."""
    if draw(st.integers(0, 5)) or not content:
        return content
    first = draw(st.integers(0, len(content) - 1))
    inserted = draw(st.binary(max_size=8))
    return content[:first] + inserted + content[first + draw(st.integers(0, 20)) :]


ARROW = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5) | st.integers(1990, 2005),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats() | st.sampled_from([0.0, 1.0, 2.0, 2000.0]),
    pa.float16(): st.floats(width=16).map(np.float16),
    pa.bool_(): st.booleans(),
    pa.string(): VALUES,
    pa.large_string(): VALUES,
    pa.binary(): st.binary(max_size=3),
    pa.date32(): st.integers(-(2**31), 2**31 - 1),
    pa.date64(): st.integers(-(10**6), 10**6).map(lambda day: day * 86_400_000),
    pa.timestamp("ns"): st.integers(-(2**63), 2**63 - 1),
    pa.timestamp("s", "America/New_York"): st.integers(-(10**11), 10**12),
    pa.list_(pa.float64()): st.lists(st.floats() | st.none(), min_size=1, max_size=2),
    pa.list_(pa.string()): st.lists(VALUES, max_size=2),
    pa.list_(pa.int32(), 2): st.lists(st.integers(0, 9), min_size=2, max_size=2),
    pa.decimal128(9, 2): st.decimals(-1000, 1000, places=2),
    pa.dictionary(pa.int8(), pa.string()): IDS,
    pa.struct([("a", pa.int8())]): st.builds(lambda n: {"a": n}, st.integers(0, 9)),
    pa.duration("s"): st.integers(0, 9),
    pa.null(): st.none(),
}


@st.composite
def parquet_tables(draw, required):
    """Draw the name and the content of a Parquet table: one column or none is of any type."""
    names = draw(headers(required))
    length = draw(st.integers(0, 40))
    columns = [pa.array([usual(name, row) for row in range(length)]) for name in names]
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        index = draw(st.integers(0, len(names) - 1))
        kind = draw(st.sampled_from(list(ARROW)))
        values = st.lists(ARROW[kind] | st.none(), min_size=1, max_size=3)
        if draw(st.booleans()):
            values = st.lists(ARROW[kind], min_size=1, max_size=3)
        columns[index] = pa.array((draw(values) * length)[:length], kind)
    content = io.BytesIO()
    try:
        pq.write_table(pa.table(columns, names=names), content)
    except pa.ArrowException:
        return ".parquet", b"PAR1"
    return ".parquet", draw(damaged(content.getvalue()))


FOLDERS = st.tuples(
    text_tables(["id"]) | parquet_tables(["id"]),
    text_tables(["citing", "cited"]) | parquet_tables(["citing", "cited"]),
    st.sampled_from(CONFIGS),
)
OUTCOMES = Counter()


def outcome(attempt):
    started = time.process_time()  # the machine may be busy with other things
    try:
        attempt()
    except CiteflowError as error:
        text = str(error)
        return text if re.fullmatch(r"error: [^\n]+(\nhint: [^\n]+)?", text) else repr(error)
    finally:
        assert time.process_time() - started < 20
    return ""


def is_imported(folder):
    """Tell whether an importer reads a folder, or refuses it, in place of `read_folder`."""
    try:
        return registry.recognize(folder) is not None
    except CiteflowError:
        return True


@settings(
    deadline=None,
    max_examples=60,
    derandomize=not FUZZ_S,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(drawn=FOLDERS)
def check_tables(drawn):
    (papers, content), (citations, other), chosen = drawn
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = Path(name) / "in"
        folder.mkdir()
        (folder / f"papers{papers}").write_bytes(content)
        (folder / f"citations{citations}").write_bytes(other)
        directly = outcome(lambda: read_folder(folder, chosen.data))
        stored = outcome(lambda: run_both(folder, Path(name), chosen))
        assert not directly or directly.startswith("error: ")
        assert not stored or stored.startswith("error: ")
        # An importer has rules and words of its own, such as for a paper that comes twice.
        assert stored == directly or not directly or is_imported(folder)
    OUTCOMES["refused" if directly else "unsplit" if stored else "prepared"] += 1
    if FUZZ_S:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < LIMIT_BYTES


@pytest.mark.fault("F27")
def test_any_tables_are_read_or_refused_in_one_line():
    started = time.monotonic()
    check_tables()
    while time.monotonic() - started < FUZZ_S:
        check_tables()
    print(OUTCOMES)
    assert OUTCOMES["refused"] < OUTCOMES.total()


def run_both(folder, root, chosen):
    raw = download_dataset(str(folder), data_root=root, config=chosen)
    prepare(raw, data_root=root, config=chosen.data)
