import gzip

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
    read_all,
    read_batches,
)
from citeflow.errors import DataError, NotFoundError


def write(folder, text, name="papers.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_table(folder, name.partition(".")[0], [])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_table_is_found_under_each_of_its_names(tmp_path, suffix):
    path = tmp_path / f"papers{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": ["a", "b"]}), path)
    else:
        path.write_bytes(gzip.compress(b"id\na\nb\n") if suffix == ".csv.gz" else b"id\na\nb\n")

    table = open_table(tmp_path, "papers", ["id"])

    assert table.path == path
    assert read_all(table).to_pydict() == {"id": ["a", "b"]}


def test_no_table_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match=r"papers\.csv\.gz"):
        open_table(tmp_path, "papers", [])


def test_windows_lines_the_mark_of_excel_and_empty_lines_are_tolerated(tmp_path):
    table = write(tmp_path, b"\xef\xbb\xbfid,w\r\n\r\na,1\r\nb,2\r\n\r\n")

    assert read_all(table).to_pydict() == {"id": ["a", "b"], "w": [1, 2]}


def test_known_columns_are_known_in_any_case_and_others_keep_theirs(tmp_path):
    assert write(tmp_path, "ID, Year ,Weight\na,1999,1\n").names == ("id", "year", "Weight")


def test_quoted_commas_quotes_and_line_breaks_stay_in_the_value(tmp_path):
    table = write(tmp_path, 'id,title\na,"one, ""two""\nthree"\nb,four\n')

    assert read_all(table).column("title").to_pylist() == ['one, "two"\nthree', "four"]


def test_a_value_that_ends_the_file_with_a_closed_quote_is_fine(tmp_path):
    table = write(tmp_path, 'id,title\na,x\nb,"two\nlines"')

    assert read_all(table).num_rows == 2


def test_a_row_is_named_by_the_line_it_starts_on(tmp_path):
    table = write(tmp_path, 'id,title\n\na,"two\nlines"\nb,x\n')

    assert [table.where(row).rpartition(" ")[2] for row in (0, 1)] == ["3", "5"]


def test_a_header_of_two_lines_is_read_whole(tmp_path):
    table = write(tmp_path, 'id,"a\nb"\nx,1\ny,2\n')

    assert table.names == ("id", "a\nb")
    assert read_all(table).column("id").to_pylist() == ["x", "y"]
    assert table.where(0).endswith("line 3")


def test_a_value_longer_than_the_csv_module_likes_can_be_counted_past(tmp_path):
    table = write(tmp_path, f"id,title\na,{'x' * 200_000}\nb,y\n")

    assert table.where(1).endswith("line 3")


def test_a_line_break_in_quotes_may_lie_on_the_border_of_two_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    titles = ["x" * (row % 40) + "\n" + "y" * (row % 7) for row in range(200)]
    table = write(
        tmp_path, "id,title\n" + "".join(f'{row},"{title}"\n' for row, title in enumerate(titles))
    )

    assert read_all(table).column("title").to_pylist() == titles


def test_batches_join_to_the_whole_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 256)
    lines = "".join(f"{row},{row + 1},x\n" for row in range(500))
    table = write(tmp_path, f"citing,cited,note\n{lines}", "citations.csv")

    batches = list(read_batches(table, ["cited", "citing"]))

    assert len(batches) > 5
    joined = pa.Table.from_batches(batches)
    assert joined.column_names == ["cited", "citing"]
    assert joined.column("cited").to_pylist() == [str(row + 1) for row in range(500)]


def test_batches_of_parquet_come_in_the_order_that_was_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    pq.write_table(
        pa.table({"Citing": [1, 2, 3], "x": [0, 0, 0], "CITED": [4, 5, 6]}),
        tmp_path / "citations.parquet",
    )
    table = open_table(tmp_path, "citations", ["citing", "cited"])

    batches = list(read_batches(table, ["cited", "citing"]))

    assert [batch.to_pydict() for batch in batches] == [
        {"cited": [4, 5], "citing": [1, 2]},
        {"cited": [6], "citing": [3]},
    ]


@pytest.mark.parametrize(
    ("texts", "are_whole"),
    [
        (["0", "-5", "12"], True),
        (["01", "2"], False),
        (["+1", "2"], False),
        (["-0", "2"], False),
        (["1.0", "2"], False),
        (["", "2"], False),
        (["99999999999999999999"], False),
        (["1", None], False),
    ],
)
def test_text_is_whole_numbers_only_as_one_would_write_them(texts, are_whole):
    assert (as_integers(pa.chunked_array([texts])) is not None) is are_whole


def test_a_column_with_a_typo_still_counts_as_numbers():
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
def test_numbers_of_every_type_are_the_same_numbers(tmp_path, column):
    table = write(tmp_path, "id,w\na,1\nb,0\nc,1\n")

    np.testing.assert_array_equal(
        as_numbers(table, "w", pa.chunked_array([column])), [1.0, 0.0, 1.0]
    )


def test_a_number_too_long_for_a_float_is_rounded(tmp_path):
    table = write(tmp_path, "id,w\na,9007199254740993\nb,1\n")

    assert as_numbers(table, "w", read_all(table).column("w")).tolist() == [2.0**53, 1]


def test_a_fault_is_counted_and_the_first_one_shown(tmp_path):
    table = write(tmp_path, "id,w\na,1\nb,x\nc,y\nd,1\n")

    with pytest.raises(DataError, match=r"line 3: column 'w' is not a number: 'x' \(and 1 more\)"):
        as_numbers(table, "w", read_all(table).column("w"))


def test_a_value_is_shown_on_one_line_and_cut():
    assert quote("a\nb") == r"'a\nb'"
    assert len(quote("x" * 500)) == 60
    assert quote(None) == "nothing"


def test_a_folder_with_the_name_of_a_table_is_refused(tmp_path):
    (tmp_path / "papers.csv").mkdir()

    with pytest.raises(DataError, match=r"papers\.csv cannot be read"):
        open_table(tmp_path, "papers", [])


@pytest.mark.parametrize(
    "read", [tables.read_all, lambda table: list(tables.read_batches(table, ["citing", "cited"]))]
)
def test_parquet_whose_text_is_no_utf8_is_refused(tmp_path, read):
    path = tmp_path / "citations.parquet"
    pq.write_table(
        pa.table({"citing": ["paper-one", "b"], "cited": ["b", "c"]}), path, compression="none"
    )
    content = path.read_bytes()
    assert content.count(b"paper-one") >= 1
    path.write_bytes(content.replace(b"paper-one", b"paper\xffone"))
    with pytest.raises(DataError, match=r"citations\.parquet"):
        read(tables.open_table(tmp_path, "citations", ["citing", "cited"]))
