"""OGB's raw layout, compared with OGB's own reader."""

import gzip
import re
import sys
import types

import numpy as np
import pytest
import torch
from ogb_archive import CITATIONS, FEATURES, NEGATIVES, PAPERS, write_ogb, write_table

from citeflow.data import ogb
from citeflow.data.ogb import read_ogb, read_tables
from citeflow.errors import DataError, NotFoundError


@pytest.fixture
def folder(tmp_path):
    write_ogb(tmp_path / "citation-v2")
    return tmp_path / "citation-v2"


def test_read_ogb_gives_papers_citations_dates_and_split(tmp_path):
    arrays, split = write_ogb(tmp_path)
    graph = read_ogb(tmp_path)
    train = [split["train"]["source_node"], split["train"]["target_node"]]
    np.testing.assert_array_equal(graph.edge_2E, train)
    np.testing.assert_array_equal(graph.x_NF, arrays["node-feat"].astype(np.float32))
    np.testing.assert_array_equal(graph.id_N, np.arange(PAPERS))
    days = graph.day_N.astype("datetime64[D]")
    assert [str(day) for day in days] == [f"{year}-01-01" for year in arrays["node_year"][:, 0]]
    for held_out, part in ((graph.split.valid, split["valid"]), (graph.split.test, split["test"])):
        np.testing.assert_array_equal(held_out.source_P, part["source_node"])
        np.testing.assert_array_equal(held_out.target_P, part["target_node"])
        np.testing.assert_array_equal(held_out.negative_PK, part["target_node_neg"])
    indices = (graph.edge_2E, graph.day_N, graph.split.test.negative_PK)
    assert all(index.dtype == np.int32 for index in indices)


@pytest.mark.parametrize("block_bytes", [512, 16 << 20])
def test_read_tables_agrees_with_ogbs_own_reader(folder, monkeypatch, block_bytes):
    outdated = types.ModuleType("outdated")  # ogb asks PyPI for its newest version
    outdated.check_outdated = lambda *_: (False, "")
    monkeypatch.setitem(sys.modules, "outdated", outdated)
    from ogb.io.read_graph_raw import read_csv_graph_raw

    monkeypatch.setattr(ogb, "BLOCK_BYTES", block_bytes)
    (theirs,) = read_csv_graph_raw(str(folder / "raw"), additional_node_files=["node_year"])
    ours = read_tables(folder / "raw")
    np.testing.assert_array_equal(ours.edge_2E, theirs["edge_index"])
    np.testing.assert_array_equal(ours.x_NF, theirs["node_feat"])
    np.testing.assert_array_equal(ours.year_N, theirs["node_year"][:, 0])
    assert ours.num_papers == theirs["num_nodes"] == PAPERS
    assert ours.x_NF.shape == (PAPERS, FEATURES)


def test_read_ogb_needs_no_features_and_years(folder):
    full = read_ogb(folder)
    for name in ogb.OPTIONAL:
        (folder / name).unlink()
    bare = read_ogb(folder)
    assert (bare.x_NF, bare.day_N) == (None, None)
    np.testing.assert_array_equal(bare.edge_2E, full.edge_2E)


def test_read_ogb_accepts_held_out_citations_in_the_edge_list(folder):
    num_all = CITATIONS + 7 + 7
    write_table(folder / "raw" / "edge.csv.gz", np.ones((num_all, 2), int))
    write_table(folder / "raw" / "num-edge-list.csv.gz", np.array([[num_all]]))
    assert read_ogb(folder).edge_2E.shape == (2, CITATIONS)


@pytest.mark.parametrize("name", ogb.REQUIRED)
def test_read_ogb_names_a_missing_file(folder, name):
    (folder / name).unlink()
    for read in (read_ogb, ogb.find_files):
        with pytest.raises(NotFoundError, match=name):
            read(folder)


@pytest.mark.parametrize("name", ["edge", "node-feat", "node_year", "num-node-list"])
def test_read_ogb_names_a_truncated_gzip(folder, name):
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
        ("node-feat", "1,2\n" * 59 + "1,?\n", "?"),
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
def test_read_ogb_refuses_a_wrong_table(folder, name, text, message):
    (folder / "raw" / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_ogb(folder)
    assert f"{name}.csv.gz" in caught.value.what
    assert "\n" not in caught.value.what + caught.value.value


SOURCE, TARGET, NEGATIVE = "source_node", "target_node", "target_node_neg"
TOO_FEW = {SOURCE: np.zeros(299, int), TARGET: np.ones(299, int)}


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("train", {SOURCE: None}, "no source_node: it holds target_node"),
        ("train", {SOURCE: np.zeros(299, int)}, "arrays of different lengths: [299, 300]"),
        ("train", TOO_FEW, "do not agree: 300 against 299"),
        ("train", {TARGET: np.full(300, PAPERS)}, "target_node: not a row of a paper: 60"),
        ("train", {TARGET: np.zeros(300)}, "must hold rows of papers in 1 axes: float64 (300,)"),
        ("valid", {NEGATIVE: None}, "no target_node_neg"),
        ("valid", {NEGATIVE: np.zeros(7, int)}, "in 2 axes"),
        ("valid", {NEGATIVE: np.zeros((6, NEGATIVES), int)}, "different lengths: [7, 7, 6]"),
        ("test", {NEGATIVE: np.full((7, NEGATIVES), -1)}, "not a row of a paper: -1"),
        ("test", {SOURCE: torch.zeros(0, dtype=torch.int64)}, "int64 (0,)"),
    ],
)
def test_read_ogb_refuses_a_wrong_split(folder, part, changes, message):
    path = folder / "split" / "time" / f"{part}.pt"
    content = {**torch.load(path, weights_only=False), **changes}
    torch.save({name: values for name, values in content.items() if values is not None}, path)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_ogb(folder)
    assert "\n" not in caught.value.what + caught.value.value
