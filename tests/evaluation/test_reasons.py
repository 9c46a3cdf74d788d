"""Reasons name papers and citations that exist, and weigh them as the model's features do."""

import numpy as np
import pytest

from citeflow.evaluation.reasons import Names, find_evidence, find_reasons
from citeflow.graph.source import Source
from citeflow.models.meta_paths import PATHS

NUM_PAIRS = 60
NUM_RANDOM = 400


@pytest.fixture(scope="module")
def names(graph):
    return Names(ids=graph.ids(), titles=None)


@pytest.fixture(scope="module")
def pairs(graph):
    """Random pairs, and held-out sources with their targets and other papers."""
    rows = slice(NUM_PAIRS // 2)
    rng = np.random.default_rng(0)
    return [
        *(
            (a, b)
            for a, b in rng.integers(0, graph.num_papers, (NUM_RANDOM, 2)).tolist()
            if a != b and b not in graph.references.row(a)
        ),
        *zip(graph.test.source_P[rows].tolist(), graph.test.target_P[rows].tolist(), strict=True),
        *zip(graph.test.source_P[rows].tolist(), graph.test.negative_PK[rows, 0], strict=True),
    ]


def evidence(graph, source, candidate):
    return next(find_evidence(graph, Source.stored(graph, source), np.array([candidate])))


def reasons_of(graph, source, candidate, *, cosine=0.0, **others):
    found = find_reasons(graph, source, np.array([candidate]), cosines=[cosine], **others)
    return next(found)


@pytest.mark.parametrize(
    "kind",
    [
        "reference_of_reference",
        "bibliographic_coupling",
        "co_citation",
        "cited_together",
    ],
)
def test_evidence_has_the_weight_of_the_structural_feature(graph, structural, pairs, kind):
    source_P, target_P = (np.array(ends, dtype=np.int32) for ends in zip(*pairs, strict=True))
    feature_P = structural.for_candidates(source_P, target_P[:, None])[
        :, 0, structural.names.index(kind)
    ]
    weight_P = [
        sum(each.weight for each in evidence(graph, *pair) if each.kind == kind) for pair in pairs
    ]
    path = next(path for path in PATHS if path.name == kind)
    first_P = getattr(graph, path.hops[0]).degree_N[source_P]
    np.testing.assert_allclose(
        np.log1p(path.scale * first_P * np.array(weight_P)), feature_P, rtol=1e-5
    )
    assert np.count_nonzero(feature_P) > 3


def test_reasons_name_training_citations_alone(graph, names, pairs):
    row_of = {name: row for row, name in enumerate(names.ids)}
    held_out = {
        pair
        for part in (graph.valid, graph.test)
        for pair in zip(part.source_P.tolist(), part.target_P.tolist(), strict=True)
    }
    cites = set(map(tuple, graph.references.edges().T.tolist()))
    assert not cites & held_out
    kinds = set()
    for source, candidate in pairs:
        reasons = reasons_of(
            graph, Source.stored(graph, source), candidate, names=names, kind="similar_features"
        )
        assert len(reasons) <= 3
        for reason in reasons:
            kinds.add(reason.kind)
            papers = [row_of[name] for name in reason.papers]
            citing = [row_of[name] for name in reason.citing]
            named = {
                "reference_of_reference": {(source, x) for x in papers}
                | {(x, candidate) for x in papers},
                "bibliographic_coupling": {(source, x) for x in papers}
                | {(candidate, x) for x in papers},
                "co_citation": {(source, x) for x in papers} | {(y, candidate) for y in citing},
                "cited_together": {(x, end) for x in papers for end in (source, candidate)},
                "reference_of_similar": {(x, candidate) for x in papers},
                "similar_to_reference": {(source, x) for x in papers},
                "popularity": set(),
            }[reason.kind]
            assert named <= cites
            assert (
                all(any((y, x) in cites for y in graph.citations.row(candidate)) for x in papers)
                or reason.kind != "co_citation"
            )
            assert source not in papers + citing
            assert candidate not in papers + citing
    assert {"reference_of_reference", "bibliographic_coupling", "co_citation"} <= kinds


def test_reasons_are_likeness_or_popularity_where_there_is_no_path(graph, names):
    alone = next(
        (source, candidate)
        for source in range(graph.num_papers)
        for candidate in range(graph.num_papers)
        if source != candidate
        and len(graph.citations.row(candidate))
        and not evidence(graph, source, candidate)
    )

    source, candidate = Source.stored(graph, alone[0]), alone[1]

    def kinds(cosine):
        reasons = reasons_of(
            graph, source, candidate, names=names, cosine=cosine, kind="similar_text"
        )
        return [(each.kind, each.text) for each in reasons]

    num = len(graph.citations.row(alone[1]))
    popular = ("popularity", f"cited by {num} paper{'' if num == 1 else 's'} of the graph")
    assert kinds(0.812) == [("similar_text", "similar text 0.81"), popular]
    assert kinds(0.1) == [("similar_text", "similar text 0.10"), popular]
    assert kinds(-0.1) == kinds(None) == [popular]


def test_reasons_are_written_with_titles_where_there_are_some(graph, pairs):
    titles = [f"On {name} {'and much more ' * 9}" for name in graph.ids()]
    names = Names(ids=graph.ids(), titles=titles)
    found = (
        reasons_of(
            graph,
            Source.stored(graph, source),
            candidate,
            names=names,
            cosine=0.9,
            kind="similar_text",
        )
        for source, candidate in pairs
    )
    path = next(each[0] for each in found if each[0].kind == "reference_of_reference")
    first = path.papers[0]
    assert path.text.startswith(f'cited by "On {first} and much more')
    assert f'..." ({first})' in path.text
    assert path.text.endswith(", which you cite")


def test_reasons_of_many_candidates_are_those_of_each(graph, names):
    source = Source.stored(graph, int(graph.test.source_P[0]))
    candidate_K = np.arange(graph.num_papers, dtype=np.int32)  # the source and what it cites, too
    cosines = [None if row % 3 else row / 1_000 for row in candidate_K.tolist()]
    options = {"names": names, "kind": "similar_features"}
    together = find_reasons(graph, source, candidate_K, cosines=cosines, **options)
    alone = [
        reasons_of(graph, source, row, cosine=cosine, **options)
        for row, cosine in zip(candidate_K.tolist(), cosines, strict=True)
    ]
    assert list(together) == alone
