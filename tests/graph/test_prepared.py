"""A PreparedGraph holds what was cleaned and split, mapped and not read."""

import dataclasses

import numpy as np
import pytest

from citeflow import files
from citeflow.config import DataConfig
from citeflow.data.citation_graph import CitationGraph, HeldOut, OwnSplit
from citeflow.errors import CorruptError, DataError, NotFoundError
from citeflow.graph.csr import drop_self_and_duplicates, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph, prepare, write_prepared
from citeflow.graph.split import hold_out_by_date
from citeflow.utils.usage import StageMeter

CONFIG = DataConfig(eval_negatives=10, holdout=0.2)


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


def write(graph, folder, config=CONFIG):
    raw = files.Manifest(
        kind="RawDataset", sha256="0" * 64, inputs={}, facts={"dataset": "small"}, files={}
    )
    write_prepared(graph, folder, config=config, raw=raw, meter=StageMeter())
    return PreparedGraph.open(folder)


def held_out(source, target, negative):
    arrays = (np.array(values, dtype=np.int32) for values in (source, target, negative))
    return HeldOut(**dict(zip(("source_P", "target_P", "negative_PK"), arrays, strict=True)))


def given_rows(prepared):
    """Row in `small_graph` of each paper of the prepared graph, whose ids count from 100."""
    row_N = np.array(prepared.ids()) - 100
    assert sorted(row_N) == list(range(len(row_N)))
    return row_N


def pairs_in(source, target, row_N):
    return set(zip(row_N[source].tolist(), row_N[target].tolist(), strict=True))


def test_arrays_come_back_in_the_types_that_workers_expect_and_each_row_with_its_id(tmp_path):
    graph = small_graph()
    prepared = write(graph, tmp_path / "prepared")
    row_N = given_rows(prepared)
    assert np.array_equal(prepared.x_NF, graph.x_NF[row_N])
    assert np.array_equal(prepared.day_N, graph.day_N[row_N])
    assert (prepared.x_NF.dtype, prepared.day_N.dtype) == (np.float32, np.int32)
    assert (prepared.num_papers, prepared.path) == (50, tmp_path / "prepared")
    assert prepared.titles() is None
    for csr in (prepared.references, prepared.citations, prepared.neighbors):
        assert (csr.ptr_N1.dtype, csr.index_E.dtype) == (np.int64, np.int32)
    for part in (prepared.valid, prepared.test):
        assert part.negative_PK.shape == (len(part.source_P), 10)


def test_the_rows_have_another_order_but_citations_and_split_are_those_of_the_graph(tmp_path):
    graph = small_graph()
    prepared = write(graph, tmp_path / "prepared")
    row_N = given_rows(prepared)
    assert not np.array_equal(row_N, np.arange(50))
    edge_2E, _, _ = drop_self_and_duplicates(graph.edge_2E, 50)
    train_2E, valid, test = hold_out_by_date(
        edge_2E,
        graph.day_N,
        share=CONFIG.holdout,
        num_negatives=CONFIG.eval_negatives,
        seed=CONFIG.seed,
    )
    assert pairs_in(*prepared.references.edges(), row_N) == set(map(tuple, train_2E.T.tolist()))
    for made, expected in [(prepared.valid, valid), (prepared.test, test)]:
        for name in ("source_P", "target_P", "negative_PK"):
            assert np.array_equal(row_N[getattr(made, name)], getattr(expected, name))


def test_papers_that_cite_each_other_get_rows_near_each_other(tmp_path):
    rng = np.random.default_rng(0)
    edge_2E = rng.integers(0, 20, (2, 3000), dtype=np.int32) * 50 + np.tile(
        np.arange(50, dtype=np.int32), 60
    )
    graph = CitationGraph(edge_2E=edge_2E, id_N=np.arange(1000))
    source_E, target_E = write(graph, tmp_path / "prepared").references.edges()
    assert np.mean(np.abs(edge_2E[0] - edge_2E[1]) < 20) < 0.1
    assert np.mean(np.abs(source_E - target_E) < 20) > 0.9


@pytest.mark.parametrize("rows", [1, 7])
def test_features_are_put_in_order_in_chunks_of_any_size(tmp_path, monkeypatch, rows):
    monkeypatch.setattr("citeflow.graph.prepared.BLOCK_ROWS", rows)
    monkeypatch.setattr("citeflow.graph.prepared.CHUNK_ROWS", 3 * rows)
    graph = small_graph()
    np.save(tmp_path / "features.npy", graph.x_NF)
    mapped = dataclasses.replace(graph, x_NF=np.load(tmp_path / "features.npy", mmap_mode="r"))
    prepared = write(mapped, tmp_path / "prepared")
    assert np.array_equal(prepared.x_NF, graph.x_NF[given_rows(prepared)])
    assert len(set(prepared.test.source_P)) == len(prepared.test.source_P) == 10


def test_two_papers_make_a_graph(tmp_path):
    alone = held_out([0], [1], [[1]])
    graph = CitationGraph(
        edge_2E=np.array([[1], [0]], dtype=np.int32),
        id_N=np.array([7, 9]),
        split=OwnSplit(valid=alone, test=alone),
    )
    prepared = write(graph, tmp_path / "prepared")
    ids = np.array(prepared.ids())
    assert [(ids[i], ids[j]) for i, j in prepared.references.edges().T] == [(9, 7)]
    assert (ids[prepared.test.source_P], ids[prepared.test.target_P]) == ([7], [9])


def test_every_array_is_a_read_only_map(tmp_path):
    prepared = write(small_graph(), tmp_path / "prepared")
    arrays = [prepared.x_NF, prepared.day_N, prepared.references.index_E, prepared.test.negative_PK]
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in arrays)


def test_the_three_adjacencies_agree_and_hide_what_was_held_out(tmp_path):
    prepared = write(small_graph(), tmp_path / "prepared")
    for made, expected in [
        (prepared.citations, transpose(prepared.references)),
        (prepared.neighbors, to_undirected(prepared.references)),
    ]:
        assert np.array_equal(made.ptr_N1, expected.ptr_N1)
        assert np.array_equal(made.index_E, expected.index_E)
    for part in (prepared.valid, prepared.test):
        for source, target in zip(part.source_P, part.target_P, strict=True):
            assert target not in prepared.neighbors.row(source)
            assert source not in prepared.neighbors.row(target)


@pytest.mark.fault("F27")
def test_the_facts_count_what_was_kept_and_what_was_dropped(tmp_path, figure):
    graph = small_graph(counts={"unknown": 7})
    extra_2E = np.array([[5, 5, 0], [5, 5, 49]], dtype=np.int32)
    edge_2E = np.concatenate([graph.edge_2E, extra_2E, graph.edge_2E[:, :20]], axis=1)
    facts = write(dataclasses.replace(graph, edge_2E=edge_2E), tmp_path / "prepared").facts
    given = list(map(tuple, edge_2E.T.tolist()))
    distinct = {pair for pair in given if pair[0] != pair[1]}
    num_self = sum(i == j for i, j in given)
    expected = {
        "dataset": "small",
        "split": "date",
        "num_papers": 50,
        "num_citations": len(distinct),
        "num_training_citations": len(distinct) - 20,
        "num_valid": 10,
        "num_test": 10,
        "num_negatives": 10,
        "num_features": 4,
        "dates": True,
        "later_citations": 1,
        "held_out_in_training": 0,
        "self_citations": num_self,
        "duplicates": len(given) - num_self - len(distinct),
        "unknown": 7,
    }
    assert facts.model_dump() == expected
    assert min(num_self, facts.duplicates) > 0
    figure(bad_inputs_counted=4)


@pytest.mark.fault("F27")
def test_a_split_of_its_own_that_is_in_training_too_is_counted(tmp_path, figure):
    source_E, target_E = small_graph().edge_2E[:, :3]
    negative = [[3, 4]] * 3
    split = OwnSplit(
        valid=held_out([1], [2], [[3, 4]]), test=held_out(source_E, target_E, negative)
    )
    assert write(small_graph(split=split), tmp_path / "prepared").facts.held_out_in_training == 3
    figure(bad_inputs_counted=1)


def test_without_dates_and_features_the_split_is_random(tmp_path):
    prepared = write(small_graph(day_N=None, x_NF=None), tmp_path / "prepared")
    assert (prepared.x_NF, prepared.day_N) == (None, None)
    assert [getattr(prepared.facts, name) for name in ("split", "dates", "num_features")] == [
        "random",
        False,
        0,
    ]


def test_text_ids_and_titles_come_back(tmp_path):
    id_N = np.array([f"hep-th/{i:04}" for i in range(50)], dtype=object)
    title_N = np.array([f"On {i} strings é" for i in range(50)], dtype=object)
    prepared = write(small_graph(id_N=id_N, title_N=title_N), tmp_path / "prepared")
    assert sorted(prepared.ids()) == id_N.tolist()
    assert prepared.titles() == [f"On {int(name[-4:])} strings é" for name in prepared.ids()]


def test_an_own_split_is_kept(tmp_path):
    split = OwnSplit(
        valid=held_out([1], [2], [[3, 4]]), test=held_out([1, 5], [6, 7], [[8, 9], [10, 11]])
    )
    graph = small_graph(split=split)
    prepared = write(graph, tmp_path / "prepared")
    row_N = given_rows(prepared)
    for part, own in [(prepared.valid, split.valid), (prepared.test, split.test)]:
        assert np.array_equal(row_N[part.source_P], own.source_P)
        assert np.array_equal(row_N[part.target_P], own.target_P)
        assert np.array_equal(row_N[part.negative_PK], own.negative_PK)
    assert prepared.facts.split == "own"
    assert prepared.facts.num_citations == prepared.facts.num_training_citations + 3


@pytest.mark.fault("F27")
@pytest.mark.parametrize("wrong", [50, -1])
def test_an_own_split_that_names_a_missing_paper_is_refused(tmp_path, wrong, figure):
    good = held_out([1], [2], [[3, 4]])
    split = OwnSplit(valid=good, test=held_out([1], [2], [[3, wrong]]))
    with pytest.raises(DataError, match=f"test split names a paper that does not exist: {wrong}"):
        write(small_graph(split=split), tmp_path / "prepared")
    figure(bad_inputs=1)


@pytest.mark.fault("F27")
def test_an_own_split_whose_parts_differ_in_length_is_refused(tmp_path, figure):
    good = held_out([1], [2], [[3, 4]])
    with pytest.raises(DataError, match="valid split"):
        write(
            small_graph(split=OwnSplit(valid=held_out([1, 2], [3], [[4]]), test=good)),
            tmp_path / "prepared",
        )
    figure(bad_inputs=1)


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
    ],
)
def test_a_graph_that_cannot_be_prepared_leaves_nothing_behind(tmp_path, changes, message, figure):
    with pytest.raises(DataError, match=message) as caught:
        write(small_graph(**changes), tmp_path / "prepared")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
    figure(bad_inputs=1)


def test_the_same_graph_is_written_with_the_same_digest(tmp_path):
    first, second = (write(small_graph(), tmp_path / name).manifest for name in ("first", "second"))
    assert first.sha256 == second.sha256


def test_a_missing_graph_and_a_cut_file_are_told_apart(tmp_path):
    with pytest.raises(NotFoundError, match="no PreparedGraph here"):
        PreparedGraph.open(tmp_path / "nowhere")
    folder = write(small_graph(), tmp_path / "prepared").path
    cut = folder / "references_index.npy"
    cut.write_bytes(cut.read_bytes()[:-4])
    with pytest.raises(CorruptError, match="references_index"):
        PreparedGraph.open(folder)


def test_progress_goes_to_stderr_and_nothing_to_stdout(tmp_path, capsys):
    write(small_graph(), tmp_path / "prepared")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[2] for line in err.splitlines()] == [
        "cleaned",
        "split",
        "ordered",
        "done",
    ]


def test_the_manifest_names_the_raw_dataset(tmp_path):
    folder = write(small_graph(), tmp_path / "prepared").path
    assert files.verify(folder, "PreparedGraph").inputs == {"RawDataset": "0" * 64}


@pytest.fixture
def raw(tmp_path):
    """A RawDataset as the stage before leaves it."""
    folder = tmp_path / "raw"
    folder.mkdir()
    graph = small_graph()
    (folder / "papers.csv").write_text(
        "id,year\n" + "".join(f"p{i},{1950 + i}\n" for i in range(50))
    )
    lines = "".join(f"p{citing},p{cited}\n" for citing, cited in graph.edge_2E.T)
    (folder / "citations.csv").write_text("citing,cited\n" + lines)
    files.write_manifest(
        folder, "RawDataset", inputs={}, facts={"dataset": "brought", "format": "folder"}
    )
    return folder


def test_a_raw_dataset_is_prepared_once_for_each_setting(tmp_path, raw):
    data_root = tmp_path / "data"
    path = prepare(raw, data_root=data_root, config=CONFIG)
    made = (path / "manifest.json").stat().st_mtime_ns
    assert prepare(raw, data_root=data_root, config=CONFIG) == path
    assert (path / "manifest.json").stat().st_mtime_ns == made
    assert prepare(raw, data_root=data_root, config=CONFIG.model_copy(update={"seed": 1})) != path
    assert sorted(data_root.joinpath("prepared").iterdir()) == sorted(
        data_root.joinpath("prepared").glob("?" * 16)
    )
    prepared = PreparedGraph.open(path)
    assert prepared.facts.dataset == "brought"
    assert prepared.manifest.inputs == {"RawDataset": files.read_manifest(raw, "RawDataset").sha256}


def test_a_prepared_graph_that_was_cut_is_made_anew(tmp_path, raw):
    path = prepare(raw, data_root=tmp_path / "data", config=CONFIG)
    (path / "valid_target.npy").write_bytes(b"")
    assert prepare(raw, data_root=tmp_path / "data", config=CONFIG) == path
    assert len(PreparedGraph.open(path).valid.target_P) == 10


def test_a_missing_raw_dataset_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="no RawDataset here"):
        prepare(tmp_path / "nowhere", data_root=tmp_path, config=CONFIG)
