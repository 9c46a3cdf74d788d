"""Each protocol ranks against the papers, and sees the part of the graph, that it says.

Legend: N papers, Q test citations.
"""

import dataclasses

import numpy as np
import pytest

from citeflow import config, files
from citeflow.data.citation_graph import CitationGraph, OwnSplit
from citeflow.evaluation import metrics, protocols
from citeflow.graph.preparation import write_prepared
from citeflow.graph.prepared import PreparedGraph
from citeflow.report import Report
from citeflow.utils.usage import StageMeter

RAW = files.Manifest(kind="RawDataset", sha256="0" * 64, inputs={}, facts={}, files={})


@pytest.fixture(scope="module")
def measured(model, graph):
    return protocols.measure(model, graph)


def dense(graph):
    cites_NN = np.zeros((graph.num_papers, graph.num_papers), dtype=bool)
    cites_NN[tuple(graph.references.edges())] = True
    return cites_NN


def allocation(cites_NN, source):
    """Resource allocation between a source and all papers."""
    linked_NN = (cites_NN | cites_NN.T).astype(float)
    return (linked_NN[source] / np.maximum(linked_NN.sum(0), 1)) @ linked_NN


def rank_among(score_N, target, candidates):
    better = (score_N[candidates] > score_N[target] + 1e-9).sum()
    equal = (abs(score_N[candidates] - score_N[target]) <= 1e-9).sum()
    return 1 + better + equal / 2


def expected_ranks(graph, seen):
    """Ranks by resource allocation among all older papers, in the graph that a row is seen in."""
    cites_NN = dense(graph)
    held_out = {
        (s, t)
        for part in (graph.valid, graph.test)
        for s, t in zip(part.source_P, part.target_P, strict=True)
    }
    ranks = []
    for row, (source, target) in enumerate(
        zip(graph.test.source_P, graph.test.target_P, strict=True)
    ):
        candidates = [
            paper
            for paper in np.flatnonzero(graph.day_N <= graph.day_N[source])
            if paper != source and not cites_NN[source, paper] and (source, paper) not in held_out
        ]
        ranks.append(rank_among(allocation(seen(cites_NN, row), source), target, candidates))
    return ranks


def without_source(graph, cites_NN, row):
    left_NN = cites_NN.copy()
    left_NN[graph.test.source_P[row]] = False
    return left_NN


def as_of(graph, cites_NN, row):
    return cites_NN & (graph.day_N <= graph.day_N[graph.test.source_P[row]])[:, None]


def test_all_and_cold_rank_among_every_older_paper(model, graph, monkeypatch):
    monkeypatch.setattr(protocols, "COLD_SHARE", 0.0)  # one source at a time
    found = protocols.measure(model, graph).protocols
    rows = {name: ranks.by_method["resource_allocation"].tolist() for name, ranks in found.items()}
    assert rows["all"] == expected_ranks(graph, lambda cites_NN, row: cites_NN)
    assert rows["cold"] == expected_ranks(
        graph, lambda cites_NN, row: without_source(graph, cites_NN, row)
    )


def test_the_time_cut_hides_what_newer_papers_cite(model, graph):
    sources = graph.test.source_P
    assert len(np.unique(graph.day_N[sources])) > 1
    cut = dataclasses.replace(graph, facts=graph.facts.model_copy(update={"time_cut": True}))
    found = protocols.measure(model, cut)
    rows = np.argsort(graph.day_N[sources], kind="stable")
    expected = expected_ranks(graph, lambda cites_NN, row: as_of(graph, cites_NN, row))
    assert found.protocols["all"].by_method["resource_allocation"].tolist() == [
        expected[row] for row in rows
    ]
    # The scores of the splits stay in the order of their rows.
    by_rank = dict(
        zip(rows.tolist(), found.protocols["ogb"].by_method["model"].tolist(), strict=True)
    )
    assert found.test.rank_P.tolist() == [by_rank[row] for row in range(len(rows))]


def test_held_out_citations_leak_into_nothing(trained, graph, model, measured, tmp_path):
    """A graph that never had them gives the same candidates and the same ranks."""
    order = np.random.default_rng(0).permutation(graph.references.edges().T).T
    bare = CitationGraph(
        edge_2E=order.copy(),
        id_N=np.array(graph.ids(), dtype=object),
        x_NF=np.array(graph.x_NF),
        day_N=np.array(graph.day_N),
        split=OwnSplit(valid=graph.valid, test=graph.test),
    )
    write_prepared(bare, tmp_path / "bare", config=trained.config.data, raw=RAW, meter=StageMeter())
    other = PreparedGraph.open(tmp_path / "bare")
    assert hard_by_id(other) == hard_by_id(graph)
    again = protocols.measure(model, other)
    for name, ranks in measured.protocols.items():
        for method, rank_Q in ranks.by_method.items():
            assert again.protocols[name].by_method[method].tolist() == pytest.approx(
                rank_Q.tolist(), abs=1
            ), (name, method)


def hard_by_id(graph):
    ids = np.array(graph.ids())
    return {
        ids[source]: set(ids[graph.hard.candidates.row(i)])
        for i, source in enumerate(graph.hard.source_S)
    }


@pytest.mark.parametrize("time_cut", [False, True])
def test_tuning_ranks_validation_citations_as_the_report_ranks_those_of_the_test(
    model, graph, time_cut
):
    facts = graph.facts.model_copy(update={"time_cut": time_cut})
    swapped = dataclasses.replace(graph, valid=graph.test, test=graph.valid, facts=facts)
    reported = protocols.measure(model, dataclasses.replace(graph, facts=facts)).protocols
    for protocol, ranks in reported.items():
        expected = metrics.ranking(ranks.by_method["model"])["mrr"]
        found = protocols.validation_mrr(model, swapped, protocol)
        assert found == pytest.approx(expected, rel=1e-5), protocol


def _first(ranks):
    """Ranks of one citation, which has no interval."""
    return dataclasses.replace(
        ranks,
        by_method={name: rank_Q[:1] for name, rank_Q in ranks.by_method.items()},
        num_candidates_Q=ranks.num_candidates_Q[:1],
    )


def test_a_sample_has_intervals_and_the_same_ranks(model, graph, measured):
    settings = config.changed(model.config, {"evaluation": {"num_sources": 11}})
    sampled = dataclasses.replace(
        model, details=model.details.model_copy(update={"config": settings})
    )
    found = protocols.measure(sampled, graph)
    num = len(graph.test.source_P)
    whole = protocols.scores(measured.protocols["all"], of=num, seed=0)
    assert (whole.num_sources, whole.of_sources, whole.ci) == (num, num, None)
    part = protocols.scores(found.protocols["all"], of=num, seed=0)
    assert (part.num_sources, part.of_sources) == (11, num)
    low, high = part.ci["mrr"]
    assert low < part.mrr < high
    assert protocols.scores(_first(found.protocols["all"]), of=num, seed=0).ci is None
    everything = measured.protocols["all"].by_method["model"].tolist()
    assert set(found.protocols["all"].by_method["model"].tolist()) <= set(everything)
    assert len(found.protocols["hard"].num_candidates_Q) == num


def test_sources_follow_from_the_budget():
    assert protocols.num_sources(7, num_papers=10) == 7
    assert protocols.num_sources(0, num_papers=29_557) > 1478
    assert protocols.num_sources(0, num_papers=2_927_963) == protocols.MIN_SOURCES


def test_ogb_is_the_test_score(measured, trained):
    report = Report.read(trained.report)
    ogb = report.protocols["ogb"]
    assert ogb.mrr == report.test.mrr
    assert {name: each.mrr for name, each in ogb.baselines.items()} == {
        name: each.mrr for name, each in report.baselines.items()
    }
