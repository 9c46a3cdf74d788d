"""The engine finds by walks what a scan of all papers finds, and embeds a new paper as a stored."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.engine import FEWEST
from citeflow.evaluation.predict import predict
from citeflow.evaluation.queries import QueryPaper


def ids(answer):
    return [each.id for each in answer.predictions]


def as_new(index, row):
    """Describe a stored paper as its author would."""
    graph = index.graph
    return QueryPaper(
        references=tuple(index.papers.ids[each] for each in graph.references.row(row)),
        features=tuple(graph.x_NF[row].tolist()),
        date=str(graph.day_N[row].astype("datetime64[D]")),
    )


def test_walk_finds_the_ten_best_of_all_papers(index):
    found, methods = [], []
    for name in index.papers.ids[200:]:
        exact, walk = (
            index.engine.answer(QueryPaper(paper=name), Wanted(exact=exact))
            for exact in (True, False)
        )
        assert exact.method == "exact"
        assert walk.num_candidates <= exact.num_candidates
        methods.append(walk.method)
        found.append(len({*ids(exact)} & {*ids(walk)}) / len(exact.predictions))
        if walk.method == "walk":
            assert walk.num_candidates >= FEWEST
    assert methods.count("walk") > 100
    assert np.mean(found) >= 0.99


def test_an_exact_answer_is_that_of_predict(index, trained):
    rows = index.graph.test.source_P[:5].tolist()
    queries = [QueryPaper(paper=index.papers.ids[row]) for row in rows]
    queries += [as_new(index, row) for row in rows]
    expected = predict(trained.model, queries, data_root=trained.data_root)
    for query, answer in zip(queries, expected, strict=True):
        found = index.engine.answer(query, Wanted())
        assert ids(found) == ids(answer)
        assert [each.reasons for each in found.predictions] == [
            each.reasons for each in answer.predictions
        ]
        logits = ([each.logit for each in a.predictions] for a in (found, answer))
        np.testing.assert_allclose(*logits, atol=1e-5)


def test_a_stored_paper_that_nobody_cites_is_embedded_the_same_if_it_is_new(index):
    graph = index.graph
    alone = np.flatnonzero((graph.citations.degree_N == 0) & (graph.references.degree_N > 3))
    assert len(alone) > 3
    for row in alone.tolist():
        stored, new = (
            index.engine.embedding(query)
            for query in (QueryPaper(paper=index.papers.ids[row]), as_new(index, row))
        )
        torch.testing.assert_close(new, stored, atol=1e-5, rtol=0)


def test_answers_do_not_depend_on_the_threads_that_compute_them(index):
    names = index.papers.ids[300:340]
    queries = [QueryPaper(paper=name) for name in names] + [as_new(index, 350), as_new(index, 390)]
    wanted = Wanted(exact=False, k=5)
    alone = [index.engine.answer(query, wanted) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            answers = pool.map(lambda query: index.engine.answer(query, wanted), queries)
            for found, answer in zip(answers, alone, strict=True):
                assert ids(found) == ids(answer)
                # The last bit of a product follows the alignment of its operands on some machines.
                logits = ([each.logit for each in a.predictions] for a in (found, answer))
                np.testing.assert_allclose(*logits, atol=1e-5)


def test_text_of_a_new_paper_is_read_as_when_the_graph_was_prepared(text_index):
    assert text_index.engine.has_text
    title = text_index.papers.titles[5]
    found = text_index.engine.answer(QueryPaper(title=title.partition(": ")[2]), Wanted(k=3))
    assert len(found.predictions) == 3
    assert any("no references" in remark for remark in found.remarks)
    [remark] = [
        each
        for each in text_index.engine.answer(QueryPaper(title=title), Wanted(k=3)).remarks
        if "title" in each
    ]
    assert str(text_index.papers.ids[5]) in remark
