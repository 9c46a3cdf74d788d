import re

import numpy as np
import pytest

from citeflow import files
from citeflow.errors import ConfigError, CorruptError, DataError, NotFoundError
from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.predict import find_graph, predict
from citeflow.evaluation.queries import QueryPaper

ALL = 10_000


@pytest.fixture(scope="module")
def answer(trained):
    """Answer queries."""

    def answer(*queries, **wanted):
        wanted = Wanted(**{"k": ALL, **wanted})
        return list(predict(trained.model, queries, data_root=trained.data_root, wanted=wanted))

    return answer


@pytest.fixture(scope="module")
def ask(answer):
    """Predict for a paper of the graph, or for a new one."""

    def ask(paper="", k=ALL, **values):
        return answer(QueryPaper(paper=paper, **values), k=k)[0].predictions

    return ask


@pytest.fixture(scope="module")
def rows(graph):
    """Rows of predicted papers."""
    row_of = {name: row for row, name in enumerate(graph.ids())}
    return lambda predictions: [row_of[each.id] for each in predictions]


@pytest.fixture(scope="module")
def as_new(graph):
    """Describe a paper of the graph as a new one."""
    ids = graph.ids()

    def as_new(row):
        return QueryPaper(
            id=f"new {ids[row]}",
            references=tuple(ids[each] for each in graph.references.row(row)),
            features=tuple(graph.x_NF[row].tolist()),
            date=str(graph.day_N[row].astype("datetime64[D]")),
        )

    return as_new


def held_out_of(graph, source):
    return {
        target
        for part in (graph.valid, graph.test)
        for target in part.target_P[part.source_P == source].tolist()
    }


def test_removed_citation_is_found(ask, trained):
    source, target = trained.missing
    found = [each.id for each in ask(source)]
    assert len(found) > 50
    assert found.index(target) < 15


def test_candidates_are_older_and_not_cited(ask, graph, rows):
    source = int(graph.test.source_P[0])
    known = {source, *graph.references.row(source).tolist()} | held_out_of(graph, source)
    no_newer = set(np.flatnonzero(graph.day_N <= graph.day_N[source]).tolist())
    assert set(rows(ask(graph.ids()[source]))) == no_newer - known
    assert len(known) > 3
    first = graph.ids().index("p0")
    found = rows(ask("p0"))
    assert set(graph.day_N[found]) <= {graph.day_N[first]}
    assert first not in found


def test_cited_papers_are_ranked_if_wanted(answer, graph, rows):
    source = int(graph.test.source_P[0])
    query = QueryPaper(paper=str(graph.ids()[source]))
    predictions = answer(query, exclude_cited=False)[0].predictions
    cited = rows(each for each in predictions if each.is_cited)
    assert set(cited) == set(graph.references.row(source).tolist()) | held_out_of(graph, source)


def test_since_leaves_out_older_papers(answer, graph, rows):
    query = QueryPaper(paper="p390")
    day = np.median(graph.day_N).astype("datetime64[D]")
    recent = rows(answer(query, since=str(day))[0].predictions)
    assert recent == [
        row
        for row in rows(answer(query)[0].predictions)
        if graph.day_N[row].astype("datetime64[D]") >= day
    ]
    assert len(recent) > 50
    with pytest.raises(ConfigError, match="not a date: 'soon'"):
        answer(query, since="soon")
    assert "no paper is left" in answer(query, since="2100")[0].error.what


def test_predictions_are_sorted_and_cut(ask, graph, rows):
    everything = ask("p300")
    few = ask("p300", k=7)
    assert few == everything[:7]
    assert [each.rank for each in everything] == list(range(1, len(everything) + 1))
    for values in ([each.logit for each in everything], [each.probability for each in everything]):
        assert values == sorted(values, reverse=True)
    assert 0 <= everything[-1].probability < 0.5 < everything[0].probability <= 1
    for each, row in zip(few, rows(few), strict=True):
        assert each.title == f"On {each.id}"
        assert each.date == str(graph.day_N[row].astype("datetime64[D]"))
        assert not each.is_cited
        assert 1 <= len(each.reasons) <= 3


def test_removed_citation_is_found_for_a_new_paper(answer, trained, graph, as_new):
    source, target = trained.missing
    row = graph.ids().index(source)
    found = [each.id for each in answer(as_new(row))[0].predictions]
    assert found.index(target) < 15
    assert not set(found) & set(as_new(row).references)


def test_an_answer_does_not_depend_on_the_others(answer, graph, as_new):
    sources = graph.test.source_P[:4].tolist()
    queries = [as_new(row) for row in sources]
    queries += [QueryPaper(paper="p300"), QueryPaper(paper="nobody"), queries[0]]
    together = answer(*queries, k=20)
    assert [each.query for each in together] == queries
    backwards = answer(*queries[::-1], k=20)[::-1]
    for query, one, other in zip(queries, together, backwards, strict=True):
        [alone] = answer(query, k=20)
        for each in (one, other):
            assert (each.error is None) == (alone.error is None) == (query.paper != "nobody")
            assert [p.id for p in each.predictions] == [p.id for p in alone.predictions]
            np.testing.assert_allclose(
                [p.logit for p in each.predictions],
                [p.logit for p in alone.predictions],
                atol=1e-4,
            )
            assert [p.reasons for p in each.predictions] == [p.reasons for p in alone.predictions]


def test_held_out_citations_change_nothing_but_the_candidates(trained, graph, tmp_path):
    """A graph that forgets them ranks all other papers the same, for the same reasons."""
    root = tmp_path / "root"
    folder = root / "prepared" / "blank"
    files.copy_directory(trained.graph, folder)
    for part in ("valid", "test"):
        for end in ("source", "target"):
            file = folder / f"{part}_{end}.npy"
            np.save(file, np.full_like(np.load(file), -1))
    source = int(graph.test.source_P[0])
    query = QueryPaper(paper=str(graph.ids()[source]))

    def ranking(root):
        [answer] = predict(trained.model, [query], data_root=root, wanted=Wanted(k=ALL))
        return {each.id: (each.logit, each.reasons) for each in answer.predictions}

    without, usual = ranking(root), ranking(trained.data_root)
    hidden = {graph.ids()[row] for row in held_out_of(graph, source)}
    assert without.keys() - usual.keys() == hidden
    for name, (logit, reasons) in usual.items():
        assert without[name] == (pytest.approx(logit, abs=1e-4), reasons)


def test_papers_of_the_text_are_found(text_trained):
    """A new paper with the words of a stored one is like it, and like what that one cites."""
    from citeflow.graph.prepared import PreparedGraph

    graph = PreparedGraph.open(text_trained.graph)
    ids, titles = graph.ids(), graph.titles()
    row = int(graph.test.source_P[0])
    abstract = " ".join(f"theme{i}" for i in range(3))
    known = QueryPaper(title=titles[row], abstract=abstract)
    other = QueryPaper(title="Something else: " + " ".join(titles[row].split()[2:]))
    answers = predict(
        text_trained.model, [known, other], data_root=text_trained.data_root, wanted=Wanted(k=ALL)
    )
    known, other = answers
    assert ids[row] not in [each.id for each in known.predictions]
    assert any("a paper with this title" in remark for remark in known.remarks)
    assert any("no references" in remark for remark in other.remarks)
    similar = [
        reason.value
        for each in other.predictions
        if each.id == ids[row]
        for reason in each.reasons
        if reason.kind == "similar_text"
    ]
    assert similar
    assert similar[0] > 0.5


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        ({"references": ("p3", "p5")}, "no features of its own"),
        ({"references": ("p3", " p3", "p5")}, "1 repeated reference left out"),
        ({"references": ("p3", "P5")}, r"1 of 2 references left out.*'P5' \(did you mean p5"),
        ({"references": ("p3",), "title": "On p7"}, "the text is not used.*not made of text"),
        ({"references": ("p3",), "title": "On p7"}, "a paper with this title.*p7"),
        ({"references": ("p3",), "date": "2190"}, "years after the newest paper"),
        ({"features": (0.5,) * 128}, "no references: .* out of its depth, it has features"),
    ],
)
def test_remarks_say_what_the_model_lacks(answer, values, remark):
    [found] = answer(QueryPaper(**values), k=3)
    assert found.error is None
    assert len(found.predictions) == 3
    assert any(re.search(remark, each) for each in found.remarks), found.remarks


@pytest.mark.parametrize(
    ("values", "kind", "what", "hint"),
    [
        ({"paper": "P300"}, NotFoundError, "no paper with this id: P300", "did you mean p300"),
        ({"paper": "p3000"}, NotFoundError, "no paper with this id: p3000", "p300"),
        ({"paper": "Attention is all"}, NotFoundError, "no paper with this id", "ids look like p"),
        ({"paper": "p1", "title": "On"}, ConfigError, "either a paper", "own text"),
        ({}, DataError, "nothing is known", "references"),
        ({"references": ("Q1", "Q2")}, NotFoundError, "no reference is in the graph", "an id is p"),
        ({"title": "On strings"}, ConfigError, "does not read text", "128 numbers"),
        ({"features": (1.0, 2.0)}, DataError, "wrong number of features: 2", "have 128"),
        ({"references": ("p3",), "date": "2003-02-30"}, ConfigError, "not a date", "2003-05-01"),
        ({"references": ("p300",), "date": "1800"}, DataError, "no paper is left", "--date"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(answer, values, kind, what, hint):
    [found] = answer(QueryPaper(**values))
    assert isinstance(found.error, kind)
    assert f"{found.error.what}: {found.error.value}".startswith(what) or what in found.error.what
    assert hint in found.error.hint


def test_text_without_a_known_word_is_no_text(text_trained):
    def ask(**values):
        query = QueryPaper(title="Zwei Worte", **values)
        return next(predict(text_trained.model, [query], data_root=text_trained.data_root))

    assert ask().error.what == "no word of the text is known"
    assert "the text model knows no word" in ask(references=("3", "7")).remarks[0]


def test_find_graph_compares_digests(trained, graph, tmp_path):
    files.copy_directory(trained.graph, tmp_path / "prepared" / "b")
    with files.new_directory(tmp_path / "prepared" / "a") as work:
        files.write_manifest(work, "PreparedGraph", inputs={}, facts={})
    assert find_graph(tmp_path, graph.manifest.sha256) == tmp_path / "prepared" / "b"


def test_predict_names_what_is_missing(trained, tmp_path):
    query = QueryPaper(paper="p1")
    with pytest.raises(NotFoundError, match="prepared") as caught:
        predict(trained.model, [query], data_root=tmp_path)
    assert "--data-root" in caught.value.hint
    with pytest.raises(NotFoundError, match="TrainedModel"):
        predict(tmp_path, [query], data_root=trained.data_root)
    with pytest.raises(CorruptError, match="TrainedModel"):
        predict(trained.graph, [query], data_root=trained.data_root)
