from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from citeflow.data import tables
from citeflow.data.diagnosis import quote
from citeflow.data.tables import (
    are_mostly_numbers,
    as_integers,
    as_numbers,
    open_table,
    parquet_batches,
    read_all,
    read_batches,
)
from citeflow.errors import DataError, NotFoundError


def write(folder, text, name="papers.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_table(folder, name.partition(".")[0], [])


def test_open_table_refuses_nothing_and_a_folder(tmp_path):
    with pytest.raises(NotFoundError, match=r"papers\.csv\.gz"):
        open_table(tmp_path, "papers", [])
    (tmp_path / "papers.csv").mkdir()
    with pytest.raises(DataError, match=r"papers\.csv cannot be read"):
        open_table(tmp_path, "papers", [])


def test_open_table_knows_columns_in_any_case(tmp_path):
    assert write(tmp_path, "ID, Year ,Weight\na,1999,1\n").names == ("id", "year", "Weight")


LONG = "x" * 200_000
UNUSUAL_CSV = {
    "windows, excel and empty lines": (
        b"\xef\xbb\xbfid,w\r\n\r\na,1\r\nb,2\r\n\r\n",
        {"id": ["a", "b"], "w": [1, 2]},
        [3, 4],
    ),
    "quotes, commas and lines in quotes": (
        'id,title\na,"one, ""two""\n3"\nb,\n',
        {"id": ["a", "b"], "title": ['one, "two"\n3', ""]},
        [2, 4],
    ),
    "quote that ends the file": (
        'id,title\n\na,x\nb,"two\n"',
        {"id": ["a", "b"], "title": ["x", "two\n"]},
        [3, 4],
    ),
    "header of two lines": (
        'id,"a\nb"\nx,1\ny,2\n',
        {"id": ["x", "y"], "a\nb": [1, 2]},
        [3, 4],
    ),
    "value beyond the limit of the csv module": (
        f"id,title\na,{LONG}\nb,y\n",
        {"id": ["a", "b"], "title": [LONG, "y"]},
        [2, 3],
    ),
}


@pytest.mark.parametrize(("text", "expected", "lines"), UNUSUAL_CSV.values(), ids=UNUSUAL_CSV)
def test_read_all_reads_unusual_csv_and_counts_its_lines(tmp_path, text, expected, lines):
    table = write(tmp_path, text)
    assert read_all(table).to_pydict() == expected
    assert [int(table.where(row).rpartition(" ")[2]) for row in (0, 1)] == lines


def test_read_all_joins_quotes_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    titles = ["x" * (row % 40) + "\n" + "y" * (row % 7) for row in range(200)]
    rows = "".join(f'{row},"{title}"\n' for row, title in enumerate(titles))
    assert read_all(write(tmp_path, f"id,title\n{rows}")).column("title").to_pylist() == titles


def test_read_batches_joins_to_the_whole_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 256)
    lines = "".join(f"{row},{row + 1},x\n" for row in range(500))
    table = write(tmp_path, f"citing,cited,note\n{lines}", "citations.csv")
    batches = list(read_batches(table, ["cited", "citing"]))
    assert len(batches) > 5
    data = pa.Table.from_batches(batches)
    assert data.column_names == ["cited", "citing"]
    assert data.column("cited").to_pylist() == [str(row + 1) for row in range(500)]


def test_read_batches_of_parquet_keeps_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    columns = {"Citing": [1, 2, 3], "x": [0, 0, 0], "CITED": [4, 5, 6]}
    pq.write_table(pa.table(columns), tmp_path / "citations.parquet")
    table = open_table(tmp_path, "citations", ["citing", "cited"])
    assert [batch.to_pydict() for batch in read_batches(table, ["cited", "citing"])] == [
        {"cited": [4, 5], "citing": [1, 2]},
        {"cited": [6], "citing": [3]},
    ]


@pytest.mark.parametrize(
    "read", [read_all, lambda table: list(read_batches(table, ["citing", "cited"]))]
)
def test_read_refuses_parquet_that_is_not_utf8(tmp_path, read):
    path = tmp_path / "citations.parquet"
    columns = {"citing": ["paper-one", "b"], "cited": ["b", "c"]}
    pq.write_table(pa.table(columns), path, compression="none")
    content = path.read_bytes()
    assert b"paper-one" in content
    path.write_bytes(content.replace(b"paper-one", b"paper\xffone"))
    with pytest.raises(DataError, match=r"citations\.parquet"):
        read(open_table(tmp_path, "citations", ["citing", "cited"]))


@pytest.mark.parametrize(
    ("texts", "are_integers"),
    [
        (["0", "-5", "12"], True),
        *((texts, False) for texts in (["01"], ["+1"], ["-0"], ["1.0"], [""], ["1", None])),
        (["99999999999999999999"], False),
    ],
)
def test_as_integers_takes_the_usual_form_only(texts, are_integers):
    assert (as_integers(pa.chunked_array([texts])) is not None) is are_integers


def test_are_mostly_numbers_allows_a_typo():
    assert are_mostly_numbers(pa.array(["1", "2.5", "-3e4", ".5", "oops"]))
    assert not are_mostly_numbers(pa.array(["1", "two", "three"]))
    assert not are_mostly_numbers(pa.array(["", ""]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 0, 1], pa.uint8()),
        pa.array([1.0, 0.0, 1.0], pa.float16()),
        pa.array([True, False, True]),
        pa.array(["1", " 0.0", "1e0 "]),
        pa.array(["1", "0", "1"]).dictionary_encode(),
        pa.array([1, 0, 1]).cast(pa.decimal128(30, 3)),
    ],
    ids=lambda column: str(column.type),
)
def test_as_numbers_of_every_type_are_the_same(tmp_path, column):
    table = write(tmp_path, "id,w\na,1\nb,0\nc,1\n")
    np.testing.assert_array_equal(as_numbers(table, "w", pa.chunked_array([column])), [1, 0, 1])


def test_as_numbers_rounds_what_a_float_cannot_hold(tmp_path):
    table = write(tmp_path, "id,w\na,9007199254740993\nb,1\n")
    assert as_numbers(table, "w", read_all(table).column("w")).tolist() == [2.0**53, 1]


def test_quote_gives_one_short_line():
    assert quote("a\nb") == r"'a\nb'"
    assert len(quote("x" * 500)) == 60
    assert quote(None) == "nothing"


def test_parquet_with_a_changed_byte_behind_its_data_is_read_whole_or_refused(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"citing": ["a", "b"] * 20, "cited": ["c"] * 40}), path)
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    found = Counter()
    for position in range(len(content) - 8 - size, len(content) - 8):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            names = pq.read_schema(path).names
            rows = sum(len(each) for each in parquet_batches(path, names, batch_rows=7))
        except (pa.ArrowException, OSError):
            rows = -1
        found[rows] += 1
    assert found.keys() == {-1, 40}
