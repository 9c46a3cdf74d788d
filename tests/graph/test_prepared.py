"""A PreparedGraph holds what was cleaned and split, mapped and not read."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock, patch

import numpy as np
import pytest

from citeflow import files
from citeflow.config import DataConfig
from citeflow.data.citation_graph import CitationGraph, HeldOut, OwnSplit
from citeflow.data.datasets import read_raw
from citeflow.data.text import fit_text_model
from citeflow.errors import CorruptError, DataError, NotFoundError
from citeflow.graph import preparation, similar
from citeflow.graph.csr import drop_self_and_duplicates, to_undirected, transpose
from citeflow.graph.preparation import prepare, write_prepared
from citeflow.graph.prepared import PreparedGraph
from citeflow.graph.similar import make_cells, similar_papers
from citeflow.graph.split import hold_out_by_date
from citeflow.utils.usage import StageMeter

CONFIG = DataConfig(eval_negatives=10, holdout=0.2)
RAW = files.Manifest(
    kind="RawDataset",
    sha256="0" * 64,
    inputs={},
    facts={"dataset": "small", "stages": {"download": {"seconds": 2.0}}},
    files={},
)


def small_graph(**changes):
    rng = np.random.default_rng(0)
    day_N = np.sort(rng.integers(0, 30, 50)).astype(np.int32)
    edge_2E = np.sort(rng.integers(0, 50, (2, 300), dtype=np.int32), axis=0)[::-1]
    graph = CitationGraph(
        edge_2E=edge_2E,
        id_N=np.arange(100, 150),
        x_NF=rng.standard_normal((50, 4)).astype(np.float32),
        day_N=day_N,
    )
    return dataclasses.replace(graph, **changes)


@pytest.fixture
def write(tmp_path):
    """Write a graph and open it."""

    def write(graph, name="prepared"):
        write_prepared(graph, tmp_path / name, config=CONFIG, raw=RAW, meter=StageMeter())
        return PreparedGraph.open(tmp_path / name)

    return write


def held_out(source, target, negative):
    return HeldOut(
        source_P=np.array(source, dtype=np.int32),
        target_P=np.array(target, dtype=np.int32),
        negative_PK=np.array(negative, dtype=np.int32),
    )


def original_rows(prepared):
    """Row in `small_graph` of each paper, whose ids count from 100."""
    row_N = np.array(prepared.ids()) - 100
    assert sorted(row_N) == list(range(len(row_N)))
    return row_N


def pairs(source, target):
    return set(zip(source.tolist(), target.tolist(), strict=True))


def test_arrays_have_their_types_and_follow_the_ids(write):
    graph = small_graph()
    prepared = write(graph)
    row_N = original_rows(prepared)
    assert np.array_equal(prepared.x_NF, graph.x_NF[row_N])
    assert np.array_equal(prepared.day_N, graph.day_N[row_N])
    assert (prepared.x_NF.dtype, prepared.day_N.dtype) == (np.float32, np.int32)
    assert prepared.num_papers == 50
    assert prepared.titles() is None
    for csr in (prepared.references, prepared.citations, prepared.neighbors):
        assert (csr.rowptr_N1.dtype, csr.col_E.dtype) == (np.int64, np.int32)
    for array in (prepared.x_NF, prepared.references.col_E, prepared.test.negative_PK):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_citations_and_split_are_those_of_the_graph(write):
    graph = small_graph()
    prepared = write(graph)
    row_N = original_rows(prepared)
    assert not np.array_equal(row_N, np.arange(50))
    citations, _, _ = drop_self_and_duplicates(graph.edge_2E, 50)
    train, valid, test, _ = hold_out_by_date(
        citations,
        graph.day_N,
        share=CONFIG.holdout,
        num_negatives=CONFIG.eval_negatives,
        seed=CONFIG.seed,
    )
    references = prepared.references.edges()
    assert pairs(row_N[references[0]], row_N[references[1]]) == pairs(*train.edges())
    for found, expected in [(prepared.valid, valid), (prepared.test, test)]:
        for name in ("source_P", "target_P", "negative_PK"):
            assert np.array_equal(row_N[getattr(found, name)], getattr(expected, name))


def test_adjacencies_agree_and_hide_what_was_held_out(write):
    prepared = write(small_graph())
    for found, expected in [
        (prepared.citations, transpose(prepared.references)),
        (prepared.neighbors, to_undirected(prepared.references)),
    ]:
        assert np.array_equal(found.rowptr_N1, expected.rowptr_N1)
        assert np.array_equal(found.col_E, expected.col_E)
    neighbors = pairs(*prepared.neighbors.edges())
    for part in (prepared.valid, prepared.test):
        assert not pairs(part.source_P, part.target_P) & neighbors


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rows", [1, 7])
def test_features_of_a_map_are_permuted_in_chunks(write, tmp_path, monkeypatch, rows, dtype):
    monkeypatch.setattr("citeflow.graph.preparation.BLOCK_ROWS", rows)
    graph = small_graph()
    graph = dataclasses.replace(graph, x_NF=graph.x_NF.astype(dtype))
    memory = 8 * 3 * rows * graph.x_NF[0].nbytes
    monkeypatch.setattr("citeflow.graph.preparation.memory_limit", lambda: memory)
    np.save(tmp_path / "features.npy", graph.x_NF)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    prepared = write(small_graph(x_NF=mapped))
    assert prepared.x_NF.dtype == dtype
    assert np.array_equal(prepared.x_NF, graph.x_NF[original_rows(prepared)])


def test_two_papers_make_a_graph(write):
    part = held_out([0], [1], [[1]])
    prepared = write(
        CitationGraph(
            edge_2E=np.array([[1], [0]], dtype=np.int32),
            id_N=np.array([7, 9]),
            split=OwnSplit(valid=part, test=part),
        )
    )
    ids = np.array(prepared.ids())
    assert ids[prepared.references.edges()].T.tolist() == [[9, 7]]
    assert (ids[prepared.test.source_P], ids[prepared.test.target_P]) == ([7], [9])


@pytest.mark.fault("F27")
def test_facts_count_what_was_kept_and_dropped(write):
    graph = small_graph(counts={"unknown": 7})
    extra_2E = np.array([[5, 5, 0], [5, 5, 49]], dtype=np.int32)
    edge_2E = np.concatenate([graph.edge_2E, extra_2E, graph.edge_2E[:, :20]], axis=1)
    prepared = write(dataclasses.replace(graph, edge_2E=edge_2E))
    given = list(map(tuple, edge_2E.T.tolist()))
    distinct = {pair for pair in given if pair[0] != pair[1]}
    num_self = sum(i == j for i, j in given)
    facts = prepared.facts.model_dump()
    remarks = facts.pop("remarks")
    assert f"{num_self} self-citations dropped, such as of " in remarks[0]
    assert remarks[1].count(" to ") == 3
    assert (
        remarks[2] == "WARNING: the test has 10 citations, too few for a figure that says anything"
    )
    assert facts == {
        "dataset": "small",
        "split": "date",
        "num_papers": 50,
        "num_citations": len(distinct),
        "num_training_citations": len(distinct) - 20,
        "num_valid": 10,
        "num_test": 10,
        "num_negatives": 10,
        "num_hard": 10,
        "time_cut": False,
        "num_similar": 20,
        "num_features": 4,
        "dates": True,
        "later_citations": 1,
        "held_out_in_training": 0,
        "self_citations": num_self,
        "duplicates": len(given) - num_self - len(distinct),
        "unknown": 7,
        "without_date": 0,
        "fewest_candidates": 29,
        "median_candidates": 34,
        "most_candidates": 37,
        "short_sources": 0,
    }
    assert min(num_self, prepared.facts.duplicates) > 0
    stages = prepared.manifest.facts["stages"]
    assert stages["download"] == {"seconds": 2.0}
    assert stages["preprocess"]["peak_rss_bytes"] > 10**7


def test_similar_papers_are_those_of_the_saved_rows(write):
    prepared = write(small_graph())
    expected = similar_papers(
        np.asarray(prepared.x_NF), np.asarray(prepared.day_N), CONFIG.num_similar
    )
    assert np.array_equal(prepared.similar.rowptr_N1, expected.rowptr_N1)
    assert np.array_equal(prepared.similar.col_E, expected.col_E)
    assert write(small_graph(x_NF=None), "bare").similar is None


def test_cells_of_a_large_graph_are_kept(write, monkeypatch):
    assert write(small_graph(), "small").cells is None
    monkeypatch.setattr(similar, "EXACT", 20)
    monkeypatch.setattr(similar, "CELL_PAPERS", 10)
    prepared = write(small_graph())
    expected = make_cells(np.asarray(prepared.x_NF), np.asarray(prepared.day_N), seed=CONFIG.seed)
    assert len(expected.center_CF) > 1
    assert np.array_equal(prepared.cells.center_CF, expected.center_CF)
    assert np.array_equal(prepared.cells.members.rowptr_N1, expected.members.rowptr_N1)
    assert np.array_equal(prepared.cells.members.col_E, expected.members.col_E)


def test_text_ids_and_titles_of_a_bare_graph_come_back(write):
    id_N = np.array([f"hep-th/{i:04}" for i in range(50)], dtype=object)
    title_N = np.array([f"On {i} strings é" for i in range(50)], dtype=object)
    prepared = write(small_graph(id_N=id_N, title_N=title_N, day_N=None, x_NF=None))
    assert sorted(prepared.ids()) == id_N.tolist()
    assert prepared.titles() == [f"On {int(name[-4:])} strings é" for name in prepared.ids()]
    assert (prepared.x_NF, prepared.day_N) == (None, None)
    facts = prepared.facts
    assert (facts.split, facts.dates, facts.num_features) == ("random", False, 0)


@pytest.mark.fault("F27")
def test_own_split_is_kept_and_overlaps_are_counted(write):
    source_E, target_E = small_graph().edge_2E[:, :3]
    split = OwnSplit(
        valid=held_out([1], [2], [[3, 4]]),
        test=held_out(source_E, target_E, [[8, 9], [10, 11], [3, 4]]),
    )
    prepared = write(small_graph(split=split))
    row_N = original_rows(prepared)
    for part, own in [(prepared.valid, split.valid), (prepared.test, split.test)]:
        for name in ("source_P", "target_P", "negative_PK"):
            assert np.array_equal(row_N[getattr(part, name)], getattr(own, name))
    facts = prepared.facts
    assert facts.split == "own"
    assert facts.num_citations == facts.num_training_citations + 4
    assert facts.held_out_in_training == 3


GOOD = held_out([1], [2], [[3, 4]])


@pytest.mark.fault("F27")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"id_N": np.arange(1), "edge_2E": np.zeros((2, 1), dtype=np.int32)},
            "not enough papers: 1",
        ),
        ({"edge_2E": np.zeros((2, 3), dtype=np.int32)}, "no citations to learn from"),
        ({"edge_2E": np.zeros((2, 0), dtype=np.int32)}, "no citations to learn from"),
        ({"day_N": np.zeros(50, dtype=np.int32)}, "no test candidates"),
        (
            {"split": OwnSplit(valid=GOOD, test=held_out([1], [2], [[3, 50]]))},
            "test split names a paper that does not exist: 50",
        ),
        (
            {"split": OwnSplit(valid=GOOD, test=held_out([1], [2], [[3, -1]]))},
            "test split names a paper that does not exist: -1",
        ),
        ({"split": OwnSplit(valid=held_out([1, 2], [3], [[4]]), test=GOOD)}, "valid split"),
    ],
)
def test_bad_graph_is_refused_and_leaves_nothing(write, tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        write(small_graph(**changes))
    assert list(tmp_path.iterdir()) == []


def test_graph_is_written_with_the_same_digest(write, capsys):
    first = write(small_graph(), "first").manifest
    second = write(small_graph(), "second").manifest
    assert first.sha256 == second.sha256
    assert first.inputs == {"RawDataset": RAW.sha256}
    assert files.verify(write(small_graph(), "third").path, "PreparedGraph").files == first.files
    out, err = capsys.readouterr()
    assert out == ""
    steps = [line.split()[2] for line in err.splitlines()]
    steps = [step for step in steps if step in ("cleaned", "split", "ordered", "done")]
    assert steps == ["cleaned", "split", "ordered", "done"] * 3


def test_open_names_what_is_missing_or_wrong(write, tmp_path):
    with pytest.raises(NotFoundError, match="no PreparedGraph here"):
        PreparedGraph.open(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match="no RawDataset here"):
        prepare(tmp_path / "nowhere", data_root=tmp_path, config=CONFIG)
    folder = write(small_graph()).path
    manifest = files.read_json(folder / files.MANIFEST)
    del manifest["facts"]["num_papers"]
    files.write_json(folder / files.MANIFEST, manifest)
    with pytest.raises(CorruptError, match="num_papers"):
        PreparedGraph.open(folder)
    manifest["facts"]["num_papers"] = 50
    files.write_json(folder / files.MANIFEST, manifest)
    array = (folder / "x.npy").read_bytes()
    (folder / "x.npy").write_bytes(b"?" * len(array))
    with pytest.raises(CorruptError, match="not an array of numbers"):
        PreparedGraph.open(folder)
    (folder / "x.npy").write_bytes(array)
    cut = folder / "references_index.npy"
    cut.write_bytes(cut.read_bytes()[:-4])
    with pytest.raises(CorruptError, match="references_index"):
        PreparedGraph.open(folder)


def test_graph_of_an_earlier_version_is_named(tmp_path):
    files.write_manifest(tmp_path, "PreparedGraph", inputs={}, facts={})
    with pytest.raises(CorruptError, match="a graph of an earlier version"):
        PreparedGraph.open(tmp_path)


@pytest.fixture
def raw(tmp_path):
    """A RawDataset as the stage download writes it."""
    folder = tmp_path / "raw"
    folder.mkdir()
    papers = "".join(f"p{i},{1950 + i}\n" for i in range(50))
    citations = "".join(f"p{i},p{j}\n" for i, j in small_graph().edge_2E.T)
    (folder / "papers.csv").write_text("id,year\n" + papers)
    (folder / "citations.csv").write_text("citing,cited\n" + citations)
    facts = {"dataset": "brought", "format": "folder"}
    files.write_manifest(folder, "RawDataset", inputs={}, facts=facts)
    return folder


def test_prepare_makes_a_graph_once_for_each_setting(tmp_path, raw):
    path = prepare(raw, data_root=tmp_path, config=CONFIG)
    made_at = (path / "manifest.json").stat().st_mtime_ns
    assert prepare(raw, data_root=tmp_path, config=CONFIG) == path
    assert (path / "manifest.json").stat().st_mtime_ns == made_at
    (path / "valid_target.npy").write_bytes(b"")
    assert prepare(raw, data_root=tmp_path, config=CONFIG) == path
    other = prepare(raw, data_root=tmp_path, config=CONFIG.model_copy(update={"seed": 1}))
    assert sorted((tmp_path / "prepared").iterdir()) == sorted([path, other])
    assert len(path.name) == 16
    prepared = PreparedGraph.open(path)
    assert len(prepared.valid.target_P) == 10
    assert prepared.facts.dataset == "brought"
    assert prepared.manifest.inputs == {"RawDataset": files.read_manifest(raw, "RawDataset").sha256}


@pytest.mark.parametrize(
    ("function", "done"),
    [
        ("_save_split", set()),
        ("to_undirected", {"split"}),
        ("choose_hard", {"split", "neighbors"}),
        ("order_by_locality", {"split", "neighbors", "hard"}),
        ("_save_hard", {"split", "neighbors", "hard", "order"}),
        ("_save_similar", {"split", "neighbors", "hard", "order", "papers"}),
        ("StageCost", {"split", "neighbors", "hard", "order", "papers", "similar"}),
    ],
)
def test_prepare_goes_on_behind_the_last_step(tmp_path, raw, monkeypatch, function, done):
    expected = prepare(raw, data_root=tmp_path / "whole", config=CONFIG)
    real = getattr(preparation, function)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, function, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, data_root=tmp_path, config=CONFIG)
    (steps,) = (tmp_path / "prepared").iterdir()
    assert {step.name for step in steps.iterdir()} == {*done, "preprocess.lock"}
    calls = Mock(side_effect=real)
    monkeypatch.setattr(preparation, function, calls)
    names = {"split": "_save_split", "neighbors": "to_undirected", "hard": "choose_hard"}
    for name in done & names.keys():
        monkeypatch.setattr(preparation, names[name], Mock(side_effect=AssertionError))
    path = prepare(raw, data_root=tmp_path, config=CONFIG)
    assert calls.called
    assert list((tmp_path / "prepared").iterdir()) == [path]
    found, wanted = (files.read_manifest(each, "PreparedGraph") for each in (path, expected))
    assert (found.files, found.sha256) == (wanted.files, wanted.sha256)


def test_bad_dataset_leaves_no_steps(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(preparation, "_save_split", Mock(side_effect=DataError("bad", 1)))
    with pytest.raises(DataError):
        prepare(raw, data_root=tmp_path, config=CONFIG)
    assert list((tmp_path / "prepared").iterdir()) == []


def test_what_a_killed_step_has_left_is_removed(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(preparation, "order_by_locality", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, data_root=tmp_path, config=CONFIG)
    (steps,) = (tmp_path / "prepared").iterdir()
    (steps / ".order.abcd1234").mkdir()
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, data_root=tmp_path, config=CONFIG)
    names = {step.name for step in steps.iterdir()}
    assert names == {"split", "neighbors", "hard", "preprocess.lock"}


def test_prepare_waits_for_another_process(tmp_path, raw, caplog):
    started, go_on = threading.Event(), threading.Event()

    def read(*arguments):
        started.set()
        assert go_on.wait(10)
        return read_raw(*arguments)

    with ThreadPoolExecutor(2) as pool, patch.object(preparation, "read_raw", read):
        first = pool.submit(prepare, raw, data_root=tmp_path, config=CONFIG)
        assert started.wait(10)
        second = pool.submit(prepare, raw, data_root=tmp_path, config=CONFIG)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        go_on.set()
        assert first.result() == second.result()
    assert "made by another process" in caplog.text
    assert list((tmp_path / "prepared").iterdir()) == [first.result()]


@pytest.mark.parametrize("width", [4, 128])
def test_text_model_is_kept(write, width):
    texts = [f"alpha beta{i % 7} gamma{i % 5} delta{i % 3}" for i in range(50)]
    model, x_NF = fit_text_model(texts, width=width, seed=0)
    prepared = write(small_graph(x_NF=x_NF, text_model=model))
    new = [*texts[:5], "alpha beta1", "unheard"]
    np.testing.assert_array_equal(prepared.text_model().features(new), model.features(new))
    assert write(small_graph(), "without").text_model() is None
