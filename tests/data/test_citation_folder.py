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

every_kind_of_id = pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())


@pytest.fixture
def write(tmp_path):
    """Write papers (columns by name, `id` among them) and citations, which are given by row."""

    def write_folder(papers, edges=EDGES, *, suffix=".csv"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        ids = papers["id"]
        citations = {"citing": [ids[a] for a, _ in edges], "cited": [ids[b] for _, b in edges]}
        for stem, columns in (("papers", papers), ("citations", citations)):
            path = folder / f"{stem}.csv"
            if suffix == ".parquet":
                pq.write_table(pa.table(columns), folder / f"{stem}.parquet")
                continue
            pyarrow.csv.write_csv(pa.table(columns), path)
            if suffix == ".csv.gz":
                (folder / f"{stem}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
        return folder

    return write_folder


def read(folder, **settings):
    return read_folder(folder, DataConfig(**settings))


def days(*dates):
    return [(day - date(1970, 1, 1)).days for day in dates]


@every_kind_of_id
def test_read_folder_is_the_same_for_every_file_format(write, ids):
    papers = {
        "id": ids,
        "date": ["1999-12-31", "2001-01-01", "1969-12-31", "2003-04-05"],
        "title": ["one, two", 'say "x"', "line\nbreak", ""],
        "w": [0.25, -1.5, 3.0, 0.0],
        "n": [1, 2, 3, 4],
    }
    expected_days = [date.fromisoformat(day) for day in papers["date"]]
    for suffix in (".csv", ".csv.gz", ".parquet"):
        graph = read(write(papers, suffix=suffix))
        assert graph.edge_2E.T.tolist() == [list(edge) for edge in EDGES]
        assert graph.id_N.tolist() == ids
        assert graph.id_N.dtype == (object if isinstance(ids[0], str) else np.int64)
        assert graph.title_N.tolist() == papers["title"]
        assert graph.x_NF.tolist() == [[0.25, 1], [-1.5, 2], [3, 3], [0, 4]]
        assert graph.day_N.tolist() == days(*expected_days)
        types = (graph.edge_2E.dtype, graph.x_NF.dtype, graph.day_N.dtype)
        assert types == (np.int32, np.float32, np.int32)
        assert (graph.counts, graph.split) == ({"unknown": 0}, None)


def test_read_folder_of_ids_alone(write, capsys):
    graph = read(write({"id": IDS["text"]}))
    assert (graph.day_N, graph.x_NF, graph.title_N) == (None, None, None)
    lonely = write({"id": [1, 2, 3, 4], "title": ["a", "xx", "yy", "zz"]}, suffix=".csv.gz")
    assert read(lonely).x_NF is None
    assert "text ignored" in capsys.readouterr().err


@every_kind_of_id
def test_citations_are_resolved_across_batches(write, monkeypatch, ids):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    edges = [(row % 4, (row * row) % 4) for row in range(200)]
    assert read(write({"id": ids}, edges)).edge_2E.T.tolist() == [list(edge) for edge in edges]


@pytest.mark.parametrize(("first", "kind"), [("10", np.int64), ("010", object)])
def test_ids_with_leading_zeros_stay_text(write, first, kind):
    graph = read(write({"id": [first, "20", "30", "40"]}, suffix=".parquet"))
    assert graph.id_N.dtype == kind
    assert str(graph.id_N[0]) == first


@pytest.mark.parametrize(
    ("ids", "citing", "cited", "expected"),
    [
        ([5, 6, 7], ["7", " 6", "7"], ["5", "5", "05"], [[2, 1], [0, 0]]),
        (["5", "x"], [5], [5], [[0], [0]]),
    ],
)
def test_ids_of_numbers_and_text_are_compared_as_text(write, ids, citing, cited, expected):
    folder = write({"id": ids}, [(1, 0)], suffix=".parquet")
    pq.write_table(pa.table({"citing": citing, "cited": cited}), folder / "citations.parquet")
    assert read(folder, unknown="drop").edge_2E.tolist() == expected


@every_kind_of_id
def test_unknown_papers_are_dropped_and_counted_on_request(write, ids):
    folder = write({"id": ids})
    with (folder / "citations.csv").open("a") as file:
        file.write(f"{ids[0]},999\n-1,{ids[0]}\nzzz,yyy\n")
    graph = read(folder, unknown="drop")
    assert graph.counts == {"unknown": 3}
    assert graph.edge_2E.T.tolist() == [list(edge) for edge in EDGES]


@pytest.mark.parametrize("stranger", [-1, 4, -(2**32), 2**32])
def test_unknown_number_is_no_row(write, stranger):
    folder = write({"id": [0, 1, 2, 3]}, [(1, 0)])
    (folder / "citations.csv").write_text(f"citing,cited\n1,0\n{stranger},0\n")
    message = rf"line 3: column 'citing' is not an id of papers\.csv: '{stranger}'"
    with pytest.raises(DataError, match=message):
        read(folder)


def test_dropping_every_citation_is_an_error(write):
    folder = write({"id": [1, 2]}, [(1, 0)])
    (folder / "citations.csv").write_text("citing,cited\n8,9\n")
    with pytest.raises(DataError, match="cites no paper of"):
        read(folder, unknown="drop")


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_year_is_its_first_of_january(write, kind, suffix):
    years = [1999, 1970, 1, 9999]
    graph = read(write({"id": [1, 2, 3, 4], "year": list(map(kind, years))}, suffix=suffix))
    assert graph.day_N.tolist() == days(*(date(year, 1, 1) for year in years))
    assert graph.x_NF is None


def test_dates_may_be_short_or_have_a_time(write):
    dates = ["1999", "1999-06", "1999-06-30", "1999-06-30T23:59:59Z"]
    graph = read(write({"id": [1, 2, 3, 4], "date": dates}))
    last = date(1999, 6, 30)
    assert graph.day_N.tolist() == days(date(1999, 1, 1), date(1999, 6, 1), last, last)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("ns")], ids=str)
def test_dates_of_parquet_keep_their_day(write, kind):
    times = [datetime(1969, 12, 31, 12), datetime(2001, 2, 3, 23, 59)]
    column = pa.array(times, pa.timestamp("us")).cast(kind, safe=False)
    graph = read(write({"id": [1, 2], "date": column}, [(1, 0)], suffix=".parquet"))
    assert graph.day_N.tolist() == days(date(1969, 12, 31), date(2001, 2, 3))


@pytest.mark.parametrize(
    "kind", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64, ">f4"]
)
def test_features_of_any_real_type_are_read(write, kind):
    folder = write({"id": [1, 2, 3, 4]})
    given_NF = (np.arange(12).reshape(4, 3) % 2).astype(kind)
    is_mapped = kind in (np.float32, np.float16)
    np.save(folder / "features.npy", given_NF if is_mapped else np.asfortranarray(given_NF))
    x_NF = read(folder).x_NF
    assert x_NF.dtype == (kind if is_mapped else np.float32)
    assert x_NF.flags.c_contiguous
    assert isinstance(x_NF, np.memmap) is is_mapped
    np.testing.assert_array_equal(x_NF, given_NF.astype(np.float32))


def test_features_that_are_not_finite_are_counted(write, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_ROWS", 3)
    folder = write({"id": list(range(10))})
    given_NF = np.ones((10, 2))
    given_NF[7, 1] = given_NF[9, 0] = np.inf
    np.save(folder / "features.npy", given_NF)
    message = r"row 8, column 2: not a finite number: inf \(and 1 more\)"
    with pytest.raises(DataError, match=message):
        read(folder)


def test_features_of_the_array_precede_those_of_the_table(write):
    titles = ["x", "x", "y", "y"]
    folder = write({"id": [1, 2, 3, 4], "w": [9, 8, 7, 6], "title": titles})
    np.save(folder / "features.npy", np.arange(8).reshape(4, 2))
    graph = read(folder)
    assert graph.x_NF.tolist() == [[0, 1, 9], [2, 3, 8], [4, 5, 7], [6, 7, 6]]
    assert graph.title_N.tolist() == titles


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_that_are_not_numbers_are_named(write, suffix):
    seen = ["2001-01-01", "2002-01-01"]
    index = "__index_level_0__" if suffix == ".parquet" else ""
    papers = {index: [0, 1], "id": [1, 2], "venue": ["PRL", "JHEP"], "seen": seen, "w": [1, 2]}
    graph = read(write(papers, [(1, 0)], suffix=suffix))
    assert graph.x_NF.tolist() == [[1], [2]]
    (remark,) = graph.remarks
    assert "'venue', 'seen'" in remark


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_title_and_abstract_become_features(write, suffix):
    papers = {
        "id": [1, 2, 3, 4],
        "title": ["Branes", "Branes again", "Galaxies", None],
        "abstract": ["string theory", "string theory", "dark halos", "galaxies with dark halos"],
    }
    graph = read(write(papers, suffix=suffix), text_dim=3)
    assert graph.x_NF.shape == (4, 3)
    similarity_NN = graph.x_NF @ graph.x_NF.T
    assert min(similarity_NN[0, 1], similarity_NN[2, 3]) > 0.9
    assert similarity_NN[0, 2] < 0.1
    assert graph.title_N.tolist() == ["Branes", "Branes again", "Galaxies", ""]


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
