"""The synthetic graph: reproducible, of the requested shape, and as difficult as a real one.

Legend: N papers, E citations, P held-out citations, K candidates.
"""

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from citeflow.config import SyntheticConfig
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.synthetic import FEATURES, LAST_YEAR, make_synthetic, write_synthetic

PAPERS = 8_000


@pytest.fixture(scope="module")
def graph() -> CitationGraph:
    return make_synthetic(SyntheticConfig(num_papers=PAPERS))


@pytest.fixture(scope="module")
def held_out(graph):
    """One reference of each new paper against older ones: training edges, sources, candidates."""
    rng = np.random.default_rng(7)
    citing, cited = graph.edge_2E
    num_older = int(np.searchsorted(graph.day_N, graph.day_N[-1]))
    start_N1 = np.searchsorted(citing, np.arange(PAPERS + 1))
    source_P = np.flatnonzero(np.diff(start_N1) >= 3)
    source_P = source_P[source_P >= num_older]
    dropped_P = start_N1[source_P] + rng.integers(0, np.diff(start_N1)[source_P])
    negative_PK = rng.integers(0, num_older, (len(source_P), 500))
    kept = np.setdiff1d(np.arange(len(citing)), dropped_P)
    return graph.edge_2E[:, kept], source_P, np.column_stack([cited[dropped_P], negative_PK])


def mrr(score_PK):
    positive_P1, negative_PK = score_PK[:, :1], score_PK[:, 1:]
    rank_P = 1 + ((negative_PK > positive_P1).sum(1) + (negative_PK >= positive_P1).sum(1)) / 2
    return (1 / rank_P).mean()


def adamic_adar(edge_2E, source_P, candidate_PK):
    directed = sp.csr_array((np.ones(edge_2E.shape[1]), tuple(edge_2E)), shape=(PAPERS, PAPERS))
    both = directed + directed.T
    weight_N = 1 / np.log(np.maximum(both.sum(axis=1), 2))
    pairs = (both[source_P] @ sp.diags_array(weight_N) @ both).toarray()
    return np.take_along_axis(pairs, candidate_PK, axis=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_make_synthetic_depends_on_the_seed_alone(graph, seed):
    other = make_synthetic(SyntheticConfig(num_papers=PAPERS, seed=seed))
    for name in ("edge_2E", "x_NF"):
        is_same = np.array_equal(getattr(other, name), getattr(graph, name))
        assert is_same is (seed == 0)


@pytest.mark.parametrize(
    ("papers", "citations_per_paper"), [(1_000, 10.44), (3_000, 3.0), (5_000, 30.0)]
)
def test_make_synthetic_has_the_requested_shape(papers, citations_per_paper):
    config = SyntheticConfig(num_papers=papers, citations_per_paper=citations_per_paper)
    made = make_synthetic(config)
    assert made.x_NF.shape == (papers, FEATURES)
    assert made.x_NF.dtype == np.float32
    assert made.day_N.shape == made.id_N.shape == (papers,)
    assert made.edge_2E.dtype == np.int32
    assert made.edge_2E.shape[1] == pytest.approx(papers * citations_per_paper, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_make_synthetic_of_the_smallest_size(seed):
    made = make_synthetic(SyntheticConfig(num_papers=100, citations_per_paper=100.0, seed=seed))
    assert 100 < made.edge_2E.shape[1] < 100 * 99 / 2
    assert made.edge_2E.max() < 100


def test_citations_are_sorted_and_go_to_earlier_years(graph):
    citing, cited = graph.edge_2E
    assert (graph.day_N[cited] < graph.day_N[citing]).all()
    assert (np.diff(citing.astype(np.int64) * PAPERS + cited) > 0).all()


def test_last_year_holds_three_percent_of_the_papers(graph):
    assert (graph.day_N == graph.day_N[-1]).mean() == pytest.approx(86_596 / 2_927_963, rel=0.1)
    assert graph.day_N[-1] == (
        np.datetime64(f"{LAST_YEAR}-01-01") - np.datetime64("1970-01-01")
    ).astype(int)


def test_citation_counts_are_more_skewed_than_list_lengths(graph):
    in_N = np.sort(np.bincount(graph.edge_2E[1], minlength=PAPERS))[::-1]
    out_N = np.sort(np.bincount(graph.edge_2E[0], minlength=PAPERS))[::-1]
    tenth = PAPERS // 10
    assert in_N[:tenth].sum() > 0.5 * in_N.sum()
    assert 0.2 * out_N.sum() < out_N[:tenth].sum() < 0.4 * out_N.sum()
    assert in_N[0] > 20 * in_N.mean()


def test_common_neighbors_beat_popularity_by_far(held_out):
    edge_2E, source_P, candidate_PK = held_out
    popularity_N = np.bincount(edge_2E[1], minlength=PAPERS)
    structural = mrr(adamic_adar(edge_2E, source_P, candidate_PK))
    assert 0.35 < structural < 0.65
    assert mrr(popularity_N[candidate_PK]) < structural / 3


def test_features_alone_predict_a_little(graph, held_out):
    _, source_P, candidate_PK = held_out
    x_NF = graph.x_NF - graph.x_NF.mean(axis=0)
    likeness_PK = np.einsum("pf,pkf->pk", x_NF[source_P], x_NF[candidate_PK])
    chance = np.mean(1 / np.arange(1, candidate_PK.shape[1] + 1))
    assert 5 * chance < mrr(likeness_PK) < 0.4


def test_aggregated_features_beat_the_papers_own(graph, held_out):
    edge_2E, source_P, candidate_PK = held_out
    directed = sp.csr_array(
        (np.ones(edge_2E.shape[1], np.float32), tuple(edge_2E)), shape=(PAPERS, PAPERS)
    )
    x_NF = graph.x_NF - graph.x_NF.mean(axis=0)
    cited_NF = (directed @ x_NF) / np.maximum(directed.sum(axis=1), 1)[:, None]
    own = np.einsum("pf,pkf->pk", x_NF[source_P], x_NF[candidate_PK])
    averaged = np.einsum("pf,pkf->pk", cited_NF[source_P], x_NF[candidate_PK])
    assert mrr(averaged) > 1.2 * mrr(own)


def test_features_may_have_16_bits(tmp_path):
    config = SyntheticConfig(num_papers=500, dtype="float16")
    write_synthetic(tmp_path / "half", config)
    x_NF = np.load(tmp_path / "half" / "features.npy")
    made = make_synthetic(config)
    assert x_NF.dtype == made.x_NF.dtype == np.float16
    full_NF = make_synthetic(SyntheticConfig(num_papers=500)).x_NF
    np.testing.assert_array_equal(x_NF, full_NF.astype(np.float16))
    np.testing.assert_array_equal(x_NF, made.x_NF)


def test_write_synthetic_writes_the_graph_and_the_same_bytes(tmp_path):
    config = SyntheticConfig(num_papers=500)
    made = make_synthetic(config)
    for name in ("one", "two"):
        write_synthetic(tmp_path / name, config)
    papers = pq.read_table(tmp_path / "one" / "papers.parquet")
    citations = pq.read_table(tmp_path / "one" / "citations.parquet")
    assert papers["id"].to_pylist() == list(range(500))
    year_N = made.day_N.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    assert papers["year"].to_pylist() == year_N.tolist()
    np.testing.assert_array_equal(np.stack([citations["citing"], citations["cited"]]), made.edge_2E)
    np.testing.assert_array_equal(np.load(tmp_path / "one" / "features.npy"), made.x_NF)
    for name in ("citations.parquet", "features.npy", "papers.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
