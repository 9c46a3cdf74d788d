"""OGB's raw layout, read beside OGB's own reader."""

import gzip
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from ogb_archive import CITATIONS, FEATURES, NEGATIVES, PAPERS, write_ogb, write_table

from citeflow.data.ogb import read_ogb, read_tables
from citeflow.errors import CiteflowError, DataError, NotFoundError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_ogb(tmp_path / "citation-v2")
    return tmp_path / "citation-v2"


def resave(folder: Path, part: str, **changes: object) -> None:
    """Write a part of the split anew with other entries; None takes one away."""
    path = folder / "split" / "time" / f"{part}.pt"
    content = {**torch.load(path, weights_only=False), **changes}
    torch.save({name: values for name, values in content.items() if values is not None}, path)


def test_papers_citations_dates_and_split_are_read(tmp_path):
    arrays, split = write_ogb(tmp_path)
    graph = read_ogb(tmp_path)
    assert graph.split is not None
    assert graph.x_NF is not None
    assert graph.day_N is not None
    assert (
        graph.edge_2E.dtype == graph.split.test.negative_PK.dtype == graph.day_N.dtype == np.int32
    )
    np.testing.assert_array_equal(
        graph.edge_2E, [split["train"]["source_node"], split["train"]["target_node"]]
    )
    np.testing.assert_array_equal(graph.x_NF, arrays["node-feat"].astype(np.float32))
    np.testing.assert_array_equal(graph.id_N, np.arange(PAPERS))
    years = graph.day_N.astype("datetime64[D]")
    assert [str(day) for day in years] == [f"{year}-01-01" for year in arrays["node_year"][:, 0]]
    for held_out, part in ((graph.split.valid, split["valid"]), (graph.split.test, split["test"])):
        np.testing.assert_array_equal(held_out.source_P, part["source_node"])
        np.testing.assert_array_equal(held_out.target_P, part["target_node"])
        np.testing.assert_array_equal(held_out.negative_PK, part["target_node_neg"])


def test_ogbs_own_reader_reads_the_same(folder, monkeypatch):
    outdated = types.ModuleType("outdated")
    outdated.check_outdated = lambda *_: (False, "")
    monkeypatch.setitem(sys.modules, "outdated", outdated)
    from ogb.io.read_graph_raw import read_csv_graph_raw

    (theirs,) = read_csv_graph_raw(str(folder / "raw"), additional_node_files=["node_year"])
    ours = read_tables(folder / "raw")
    np.testing.assert_array_equal(ours.edge_2E, theirs["edge_index"])
    np.testing.assert_array_equal(ours.x_NF, theirs["node_feat"])
    np.testing.assert_array_equal(ours.year_N, theirs["node_year"][:, 0])
    assert ours.num_papers == theirs["num_nodes"] == PAPERS
    assert ours.x_NF.shape == (PAPERS, FEATURES)


def test_the_same_graph_comes_from_a_dataset_without_features_and_years(folder):
    full = read_ogb(folder)
    (folder / "raw" / "node-feat.csv.gz").unlink()
    (folder / "raw" / "node_year.csv.gz").unlink()
    bare = read_ogb(folder)
    assert bare.x_NF is None
    assert bare.day_N is None
    np.testing.assert_array_equal(bare.edge_2E, full.edge_2E)


def test_blocks_of_a_long_table_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("citeflow.data.ogb.BLOCK_BYTES", 512)
    arrays, _ = write_ogb(tmp_path)
    tables = read_tables(tmp_path / "raw")
    np.testing.assert_array_equal(tables.edge_2E, arrays["edge"].T)
    np.testing.assert_array_equal(tables.x_NF, arrays["node-feat"].astype(np.float32))


def test_an_edge_list_with_the_held_out_citations_is_accepted_too(folder):
    num_all = CITATIONS + 7 + 7
    write_table(folder / "raw" / "edge.csv.gz", np.ones((num_all, 2), int))
    write_table(folder / "raw" / "num-edge-list.csv.gz", np.array([[num_all]]))
    assert read_ogb(folder).edge_2E.shape == (2, CITATIONS)


@pytest.mark.parametrize(
    "name",
    [
        "raw/edge.csv.gz",
        "raw/num-node-list.csv.gz",
        "raw/num-edge-list.csv.gz",
        "split/time/train.pt",
        "split/time/valid.pt",
        "split/time/test.pt",
    ],
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(NotFoundError, match=name):
        read_ogb(folder)


@pytest.mark.parametrize("name", ["edge", "node-feat", "node_year", "num-node-list"])
def test_a_truncated_gzip_is_named(folder, name):
    path = folder / "raw" / f"{name}.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{name}.csv.gz is cut short"):
        read_ogb(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("edge", "0,1\n" * 299, "300 rows expected: found 299"),
        ("edge", "0,1\n" * 301, "300 rows expected: found 301"),
        ("edge", "0,1\n" * 299 + "0,60\n", "not a row of a paper: 60"),
        ("edge", "0,1\n" * 299 + "-1,0\n", "not a row of a paper: -1"),
        ("edge", "0,1\n" * 299 + "0,\n", "edge.csv.gz cannot be read"),
        ("edge", "0,1\n" * 299 + "0,x\n", "invalid value 'x'"),
        ("edge", "0,1\n" * 299 + "0,99999999999\n", "99999999999"),
        ("edge", "0,1\n" * 299 + "0,1,2\n", "line 300: 2 values expected"),
        ("edge", "", "edge.csv.gz"),
        ("node-feat", "1,2\n" * 59 + "1,nan\n", "line 60: not a finite number: nan"),
        ("node-feat", "1,2\n" * 59 + "inf,1\n", "line 60: not a finite number: inf"),
        ("node-feat", "1,2\n" * 59 + "1,?\n", "invalid value '?'"),
        ("node-feat", "1,2\n" * 59 + "1\n", "line 60: 2 values expected"),
        ("node-feat", "1,2\n" * 59, "60 rows expected: found 59"),
        ("node_year", "1999\n" * 59 + "-5\n", "line 60: not a year: -5"),
        ("node_year", "1999\n" * 59 + "20190\n", "line 60: not a year: 20190"),
        ("node_year", "1999\n" * 61, "60 rows expected: found 61"),
        ("num-node-list", "60\n60\n", "1 rows expected: found 2"),
        ("num-node-list", "0\n", "not a usable count: 0"),
        ("num-node-list", "99999999999\n", "not a usable count"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(folder, name, text, message):
    (folder / "raw" / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError) as caught:
        read_ogb(folder)
    assert f"{name}.csv.gz" in caught.value.what
    assert message.replace("invalid value '?'", "?") in str(caught.value)
    assert "\n" not in caught.value.what + caught.value.value


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("train", {"source_node": None}, "no source_node: it holds target_node"),
        ("train", {"source_node": np.zeros(299, int)}, "arrays of different lengths: [299, 300]"),
        (
            "train",
            {"source_node": np.zeros(299, int), "target_node": np.ones(299, int)},
            "do not agree: 300 against 299",
        ),
        ("train", {"target_node": np.full(300, PAPERS)}, "target_node: not a row of a paper: 60"),
        (
            "train",
            {"target_node": np.zeros(300)},
            "must hold rows of papers in 1 axes: float64 (300,)",
        ),
        ("valid", {"target_node_neg": None}, "no target_node_neg"),
        ("valid", {"target_node_neg": np.zeros(7, int)}, "in 2 axes"),
        (
            "valid",
            {"target_node_neg": np.zeros((6, NEGATIVES), int)},
            "different lengths: [7, 7, 6]",
        ),
        (
            "test",
            {"target_node_neg": np.full((7, NEGATIVES), -1)},
            "target_node_neg: not a row of a paper: -1",
        ),
        ("test", {"source_node": torch.zeros(0, dtype=torch.int64)}, "int64 (0,)"),
    ],
)
def test_a_wrong_split_is_refused_in_one_line(folder, part, changes, message):
    resave(folder, part, **changes)
    with pytest.raises(CiteflowError) as caught:
        read_ogb(folder)
    assert isinstance(caught.value, DataError)
    assert message in str(caught.value)
    assert "\n" not in caught.value.what + caught.value.value
