import json

import numpy as np
import pytest

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.evaluation.predict import find_graph, predict


@pytest.fixture(scope="module")
def ask(trained):
    """Predict for a paper."""

    def ask(paper, k=10_000):
        return predict(trained.model, data_root=trained.data_root, paper=paper, k=k)

    return ask


@pytest.fixture(scope="module")
def rows(graph):
    """Rows of predicted papers."""
    row_of = {name: row for row, name in enumerate(graph.ids())}
    return lambda predictions: [row_of[each.id] for each in predictions]


def test_removed_citation_is_found(ask, trained):
    source, target = trained.missing
    found = [each.id for each in ask(source)]
    assert len(found) > 50
    assert found.index(target) < 5


def test_candidates_are_older_and_not_cited(ask, graph, rows):
    source = int(graph.test.source_P[0])
    known = {source, *graph.references.row(source).tolist()}
    for part in (graph.valid, graph.test):
        known |= set(part.target_P[part.source_P == source].tolist())
    no_newer = set(np.flatnonzero(graph.day_N <= graph.day_N[source]).tolist())
    assert set(rows(ask(graph.ids()[source]))) == no_newer - known
    assert len(known) > 3
    first = graph.ids().index("p0")
    found = rows(ask("p0"))
    assert set(graph.day_N[found]) <= {graph.day_N[first]}
    assert first not in found


def test_predictions_are_sorted_and_cut(ask, graph, rows):
    everything = ask("p300")
    few = ask("p300", k=7)
    assert few == everything[:7]
    assert [each.rank for each in everything] == list(range(1, len(everything) + 1))
    for values in ([each.logit for each in everything], [each.probability for each in everything]):
        assert values == sorted(values, reverse=True)
    assert 0 <= everything[-1].probability < 0.5 < everything[0].probability <= 1
    for each, row in zip(few, rows(few), strict=True):
        record = json.loads(json.dumps(each.to_json()))
        assert list(record) == ["rank", "id", "title", "date", "logit", "probability"]
        assert record["title"] == f"On {each.id}"
        assert record["date"] == str(graph.day_N[row].astype("datetime64[D]"))


@pytest.mark.parametrize(
    ("paper", "hint"),
    [("P300", "p300"), ("p3000", "p300"), ("Attention is all you need", "ids look like p")],
)
def test_unknown_id_gets_a_hint(ask, paper, hint):
    with pytest.raises(NotFoundError, match=f"no paper with this id: {paper}") as caught:
        ask(paper)
    assert hint in caught.value.hint


def test_find_graph_compares_digests(trained, graph, tmp_path):
    files.copy_directory(trained.graph, tmp_path / "prepared" / "b")
    with files.new_directory(tmp_path / "prepared" / "a") as work:
        files.write_manifest(work, "PreparedGraph", inputs={}, facts={})
    assert find_graph(tmp_path, graph.manifest.sha256) == tmp_path / "prepared" / "b"


def test_predict_names_what_is_missing(trained, tmp_path):
    with pytest.raises(NotFoundError, match="prepared") as caught:
        predict(trained.model, data_root=tmp_path, paper="p1")
    assert "--data-root" in caught.value.hint
    with pytest.raises(NotFoundError, match="TrainedModel"):
        predict(tmp_path, data_root=trained.data_root, paper="p1")
    with pytest.raises(CorruptError, match="TrainedModel"):
        predict(trained.graph, data_root=trained.data_root, paper="p1")
