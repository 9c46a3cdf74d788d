import gzip
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from citeflow.config import DataConfig
from citeflow.data import features, tables
from citeflow.data.citation_folder import read_folder
from citeflow.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
EDGES = [(1, 0), (2, 0), (2, 1), (3, 1), (3, 3), (0, 3), (2, 1)]
IDS = {
    "rows": [0, 1, 2, 3],
    "numbers": [70, 7, -3, 5_000_000_000],
    "text": ["a/1", "b 2", "07", "7"],
}


def write_folder(folder, papers, edges=EDGES, *, suffix=".csv"):
    """Write papers (columns by name, `id` among them) and citations, which are given by row."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = papers["id"]
    citations = {"citing": [ids[a] for a, _ in edges], "cited": [ids[b] for _, b in edges]}
    for stem, columns in (("papers", papers), ("citations", citations)):
        table = pa.table(columns)
        if suffix == ".parquet":
            pq.write_table(table, folder / f"{stem}.parquet")
        else:
            pyarrow.csv.write_csv(table, folder / f"{stem}.csv")
        if suffix == ".csv.gz":
            (folder / f"{stem}.csv.gz").write_bytes(
                gzip.compress((folder / f"{stem}.csv").read_bytes())
            )
            (folder / f"{stem}.csv").unlink()
    return folder


def read(folder, **settings):
    return read_folder(folder, DataConfig(**settings))


def days(*dates):
    return [(day - date(1970, 1, 1)).days for day in dates]


def assert_same(one, two):
    for name in ("edge_2E", "id_N", "title_N", "x_NF", "day_N"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype, name
            np.testing.assert_array_equal(first, second, err_msg=name)
    assert one.counts == two.counts


@pytest.mark.parametrize("ids", IDS)
def test_csv_gzip_and_parquet_give_the_same_graph(tmp_path, ids):
    papers = {
        "id": IDS[ids],
        "date": ["1999-12-31", "2001-01-01", "1969-12-31", "2003-04-05"],
        "title": ["one, two", 'say "x"', "line\nbreak", ""],
        "w": [0.25, -1.5, 3.0, 0.0],
        "n": [1, 2, 3, 4],
    }
    graphs = [
        read(write_folder(tmp_path / s, papers, suffix=s)) for s in (".csv", ".csv.gz", ".parquet")
    ]

    assert_same(graphs[0], graphs[1])
    assert_same(graphs[0], graphs[2])
    graph = graphs[0]
    assert graph.edge_2E.T.tolist() == [list(edge) for edge in EDGES]
    assert graph.edge_2E.dtype == np.int32
    assert graph.id_N.tolist() == IDS[ids]
    assert graph.title_N.tolist() == papers["title"]
    assert graph.x_NF.tolist() == [[0.25, 1], [-1.5, 2], [3, 3], [0, 4]]
    assert (graph.x_NF.dtype, graph.day_N.dtype) == (np.float32, np.int32)
    assert graph.day_N.tolist() == days(
        date(1999, 12, 31), date(2001, 1, 1), date(1969, 12, 31), date(2003, 4, 5)
    )
    assert graph.counts == {"unknown": 0}


@pytest.mark.parametrize("ids", IDS)
def test_a_citation_finds_its_papers_across_batches(tmp_path, monkeypatch, ids):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    edges = [(row % 4, (row * row) % 4) for row in range(200)]

    graph = read(write_folder(tmp_path / "folder", {"id": IDS[ids]}, edges))

    assert graph.edge_2E.T.tolist() == [list(edge) for edge in edges]


def test_whole_numbers_are_kept_as_int64_and_leading_zeros_make_text(tmp_path):
    numbers = read(
        write_folder(tmp_path / "numbers", {"id": ["10", "20", "30", "40"]}, suffix=".parquet")
    )
    text = read(
        write_folder(tmp_path / "text", {"id": ["010", "20", "30", "40"]}, suffix=".parquet")
    )

    assert numbers.id_N.dtype == np.int64
    assert text.id_N.tolist() == ["010", "20", "30", "40"]


def test_a_number_and_its_text_are_one_id_but_not_with_zeros_in_front(tmp_path):
    folder = write_folder(tmp_path / "folder", {"id": [5, 6, 7]}, [(1, 0)], suffix=".parquet")
    pq.write_table(
        pa.table({"citing": ["7", " 6", "7"], "cited": ["5", "5", "05"]}),
        folder / "citations.parquet",
    )

    graph = read(folder, unknown="drop")

    assert graph.edge_2E.tolist() == [[2, 1], [0, 0]]
    assert graph.counts == {"unknown": 1}


def test_whole_numbers_find_text_ids(tmp_path):
    folder = write_folder(tmp_path / "folder", {"id": ["5", "x"]}, [(1, 0)], suffix=".parquet")
    pq.write_table(pa.table({"citing": [5], "cited": [5]}), folder / "citations.parquet")

    assert read(folder).edge_2E.tolist() == [[0], [0]]


@pytest.mark.parametrize("ids", IDS)
def test_unknown_papers_are_dropped_and_counted_on_request(tmp_path, ids):
    folder = write_folder(tmp_path / "folder", {"id": IDS[ids]})
    known = IDS[ids][0]
    with (folder / "citations.csv").open("a") as file:
        file.write(f"{known},999\n-1,{known}\nzzz,yyy\n")

    graph = read(folder, unknown="drop")

    assert graph.counts == {"unknown": 3}
    assert graph.edge_2E.T.tolist() == [list(edge) for edge in EDGES]


@pytest.mark.parametrize("stranger", [-1, 4, -(2**32), 2**32])
def test_a_whole_number_that_is_no_row_is_unknown(tmp_path, stranger):
    folder = write_folder(tmp_path / "folder", {"id": [0, 1, 2, 3]}, [(1, 0)])
    (folder / "citations.csv").write_text(f"citing,cited\n1,0\n{stranger},0\n")

    with pytest.raises(
        DataError, match=rf"line 3: column 'citing' is not an id of papers\.csv: '{stranger}'"
    ):
        read(folder)


def test_unknown_papers_far_down_are_named_by_their_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    folder = write_folder(tmp_path / "folder", {"id": IDS["text"]}, EDGES * 20)
    with (folder / "citations.csv").open("a") as file:
        file.write("7,q1\nq2,7\n7,7\n")

    with pytest.raises(
        DataError, match=r"line 142: column 'cited' is not an id of papers\.csv: 'q1' \(2 such"
    ):
        read(folder)


def test_dropping_every_citation_is_an_error(tmp_path):
    folder = write_folder(tmp_path / "folder", {"id": [1, 2]}, [(1, 0)])
    (folder / "citations.csv").write_text("citing,cited\n8,9\n")

    with pytest.raises(DataError, match="cites no paper of"):
        read(folder, unknown="drop")


@pytest.mark.parametrize("years", [[1999, 1970, 1, 9999], [1999.0, 1970.0, 1.0, 9999.0]])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_year_is_its_first_of_january(tmp_path, years, suffix):
    graph = read(
        write_folder(tmp_path / "folder", {"id": [1, 2, 3, 4], "year": years}, suffix=suffix)
    )

    expected = days(date(1999, 1, 1), date(1970, 1, 1), date(1, 1, 1), date(9999, 1, 1))
    assert graph.day_N.tolist() == expected
    assert graph.day_N.dtype == np.int32
    assert graph.x_NF is None


def test_dates_may_be_short_or_have_a_time(tmp_path):
    dates = ["1999", "1999-06", "1999-06-30", "1999-06-30T23:59:59Z"]

    graph = read(write_folder(tmp_path / "folder", {"id": [1, 2, 3, 4], "date": dates}))

    last = date(1999, 6, 30)
    assert graph.day_N.tolist() == days(date(1999, 1, 1), date(1999, 6, 1), last, last)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("ns")], ids=str)
def test_dates_of_parquet_are_read_as_they_are(tmp_path, kind):
    times = [datetime(1969, 12, 31, 12), datetime(2001, 2, 3, 23, 59)]
    column = pa.array(times, pa.timestamp("us")).cast(kind, safe=False)

    graph = read(
        write_folder(
            tmp_path / "folder", {"id": [1, 2], "date": column}, [(1, 0)], suffix=".parquet"
        )
    )

    assert graph.day_N.tolist() == days(date(1969, 12, 31), date(2001, 2, 3))


def test_a_folder_of_ids_alone_is_a_graph_without_dates_and_features(tmp_path):
    graph = read(write_folder(tmp_path / "folder", {"id": IDS["text"]}))

    assert (graph.day_N, graph.x_NF, graph.title_N, graph.split) == (None, None, None, None)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float16, np.float64, ">f4"])
def test_features_of_any_real_kind_become_float32(tmp_path, kind):
    folder = write_folder(tmp_path / "folder", {"id": [1, 2, 3, 4]})
    given_NF = (np.arange(12).reshape(4, 3) % 2).astype(kind)
    np.save(folder / "features.npy", np.asfortranarray(given_NF))

    x_NF = read(folder).x_NF

    assert x_NF.dtype == np.float32
    assert x_NF.flags.c_contiguous
    np.testing.assert_array_equal(x_NF, given_NF.astype(np.float32))


def test_features_of_float32_stay_on_the_disk(tmp_path):
    folder = write_folder(tmp_path / "folder", {"id": [1, 2, 3, 4]})
    given_NF = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(folder / "features.npy", given_NF)

    x_NF = read(folder).x_NF

    assert isinstance(x_NF, np.memmap)
    assert not x_NF.flags.writeable
    np.testing.assert_array_equal(x_NF, given_NF)


def test_a_fault_far_down_in_the_features_is_named_by_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_ROWS", 3)
    folder = write_folder(tmp_path / "folder", {"id": list(range(10))})
    given_NF = np.ones((10, 2))
    given_NF[7, 1] = given_NF[9, 0] = np.inf
    np.save(folder / "features.npy", given_NF)

    with pytest.raises(
        DataError, match=r"row 8, column 2: not a finite number: inf \(and 1 more\)"
    ):
        read(folder)


def test_features_of_the_array_stand_before_those_of_the_table(tmp_path):
    folder = write_folder(
        tmp_path / "folder", {"id": [1, 2, 3, 4], "w": [9, 8, 7, 6], "title": ["x", "x", "y", "y"]}
    )
    np.save(folder / "features.npy", np.arange(8).reshape(4, 2))

    graph = read(folder)

    assert graph.x_NF.tolist() == [[0, 1, 9], [2, 3, 8], [4, 5, 7], [6, 7, 6]]
    assert graph.title_N.tolist() == ["x", "x", "y", "y"]


def test_columns_that_are_no_numbers_are_ignored_with_a_warning(tmp_path, capsys):
    papers = {
        "": [0, 1],
        "id": [1, 2],
        "venue": ["PRL", "JHEP"],
        "seen": ["2001-01-01", "2002-01-01"],
        "w": [1, 2],
    }

    graph = read(write_folder(tmp_path / "folder", papers, [(1, 0)]))

    assert graph.x_NF.tolist() == [[1], [2]]
    logged = capsys.readouterr()
    assert logged.out == ""
    assert "'venue', 'seen'" in logged.err
    assert logged.err.count("\n") == 1


def test_the_index_that_pandas_leaves_in_parquet_is_no_feature(tmp_path):
    papers = {"id": [1, 2], "w": [1.0, 2.0], "__index_level_0__": [10, 20]}

    graph = read(write_folder(tmp_path / "folder", papers, [(1, 0)], suffix=".parquet"))

    assert graph.x_NF.tolist() == [[1], [2]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_words_of_title_and_abstract_become_features(tmp_path, suffix):
    papers = {
        "id": [1, 2, 3, 4],
        "title": ["Branes", "Branes again", "Galaxies", None],
        "abstract": ["string theory", "string theory", "dark halos", "galaxies with dark halos"],
    }

    graph = read(write_folder(tmp_path / "folder", papers, suffix=suffix), text_dim=3)

    assert graph.x_NF.shape == (4, 3)
    alike_NN = graph.x_NF @ graph.x_NF.T
    assert alike_NN[0, 1] > 0.9
    assert alike_NN[2, 3] > 0.9
    assert alike_NN[0, 2] < 0.1
    assert graph.title_N.tolist() == ["Branes", "Branes again", "Galaxies", ""]


def test_text_that_relates_no_papers_leaves_structure_alone(tmp_path, capsys):
    graph = read(
        write_folder(tmp_path / "folder", {"id": [1, 2, 3, 4], "title": ["a", "xx", "yy", "zz"]})
    )

    assert graph.x_NF is None
    assert "text ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "num_papers", "num_citations", "num_features", "is_dated"),
    [("hepth", 29_557, 351_524, 50, True), ("cora", 2_708, 5_278, 1_433, False)],
)
def test_real_networks_are_read_whole(name, num_papers, num_citations, num_features, is_dated):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name} does not lie beside this checkout")

    graph = read(SHARED / name)

    assert graph.x_NF.shape == (num_papers, num_features)
    assert graph.edge_2E.shape == (2, num_citations)
    assert graph.edge_2E.min() >= 0
    assert graph.edge_2E.max() < num_papers
    assert (graph.day_N is not None) is is_dated
    if is_dated:
        assert (graph.day_N.min(), graph.day_N.max() // 365) == (days(date(1991, 12, 31))[0], 33)
