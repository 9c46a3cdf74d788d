import json

import numpy as np
import pytest

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.evaluation.predict import find_graph, predict
from citeflow.graph.prepared import PreparedGraph


@pytest.fixture(scope="module")
def graph(trained):
    return PreparedGraph.open(trained.graph)


@pytest.fixture(scope="module")
def ask(trained):
    def ask(paper, k=10_000):
        return predict(trained.model, data_root=trained.data_root, paper=paper, k=k)

    return ask


@pytest.fixture(scope="module")
def held_out_paper(graph):
    """Row of a paper that gave a citation to validation and one to the test."""
    return int(graph.test.source_P[0])


@pytest.fixture(scope="module")
def rows(graph):
    """Rows of the papers that were found, or of one id."""
    row_of = {name: row for row, name in enumerate(graph.ids())}

    def rows(found):
        return (
            row_of[found] if isinstance(found, str) else [row_of[record["id"]] for record in found]
        )

    return rows


def test_the_citation_that_was_taken_away_is_found_high_up(ask, trained):
    source, target = trained.missing
    found = [record["id"] for record in ask(source)]
    assert len(found) > 50
    assert found.index(target) < 5


def test_candidates_are_all_older_papers_that_are_not_cited_and_not_held_out(
    ask, graph, rows, held_out_paper
):
    known = {held_out_paper, *graph.references.row(held_out_paper).tolist()}
    for part in (graph.valid, graph.test):
        known |= set(part.target_P[part.source_P == held_out_paper].tolist())
    no_newer = set(np.flatnonzero(graph.day_N <= graph.day_N[held_out_paper]).tolist())
    assert set(rows(ask(graph.ids()[held_out_paper]))) == no_newer - known
    assert len(known) > 3


def test_a_paper_of_the_middle_is_never_told_to_cite_what_came_later(ask, graph, rows):
    found = rows(ask("p200"))
    assert graph.day_N[found].max() <= graph.day_N[rows("p200")] < graph.day_N.max()


def test_the_likeliest_come_first_and_the_list_is_as_long_as_asked(ask):
    everything, few = ask("p300"), ask("p300", k=7)
    assert few == everything[:7]
    logits = [record["logit"] for record in everything]
    assert logits == sorted(logits, reverse=True)
    assert [record["rank"] for record in everything] == list(range(1, len(everything) + 1))
    probabilities = [record["probability"] for record in everything]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 <= probabilities[-1] < 0.5 < probabilities[0] <= 1


def test_a_record_tells_id_title_and_date_in_plain_values(ask, graph, rows):
    for record in json.loads(json.dumps(ask("p300", k=3))):
        day = graph.day_N[rows(record["id"])]
        assert record["title"] == f"On {record['id']}"
        assert record["date"] == str(day.astype("datetime64[D]"))
        assert set(record) == {"rank", "id", "title", "date", "logit", "probability"}


def test_the_first_paper_has_nothing_but_its_year_to_choose_from(ask, graph, rows):
    first = rows("p0")
    found = rows(ask("p0"))
    assert set(graph.day_N[found]) <= {graph.day_N[first]}
    assert first not in found


@pytest.mark.parametrize(("paper", "near"), [("P300", "p300"), ("p3000", "p300"), ("300", "p300")])
def test_an_unknown_id_is_told_with_the_nearest(ask, paper, near):
    with pytest.raises(NotFoundError, match=f"no paper with this id: {paper}") as caught:
        ask(paper)
    assert near in caught.value.hint


def test_an_id_like_no_other_is_told_what_ids_look_like(ask, graph):
    with pytest.raises(NotFoundError) as caught:
        ask("Attention is all you need")
    assert caught.value.hint == f"ids look like {graph.ids()[0]}"


def test_the_graph_is_found_by_its_digest_among_others(trained, graph, tmp_path):
    files.copy_directory(trained.graph, tmp_path / "prepared" / "b")
    with files.new_directory(tmp_path / "prepared" / "a") as work:
        files.write_manifest(work, "PreparedGraph", inputs={}, facts={})
    assert find_graph(tmp_path, graph.manifest.sha256) == tmp_path / "prepared" / "b"


def test_a_graph_that_is_no_longer_there_is_told(trained, tmp_path):
    with pytest.raises(NotFoundError, match="prepared") as caught:
        predict(trained.model, data_root=tmp_path, paper="p1")
    assert "--data-root" in caught.value.hint


def test_a_model_that_is_none_is_told(trained, tmp_path):
    with pytest.raises(NotFoundError, match="TrainedModel"):
        predict(tmp_path, data_root=trained.data_root, paper="p1")
    with pytest.raises(CorruptError, match="TrainedModel"):
        predict(trained.graph, data_root=trained.data_root, paper="p1")
