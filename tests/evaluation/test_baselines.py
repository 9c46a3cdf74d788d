"""BM25 is the textbook's sum over the words of the source; a cosine does not depend on the type."""

import dataclasses
import math
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from whole_graphs import graph_of

from citeflow import config, files
from citeflow.config import ModelConfig
from citeflow.data.bm25 import bm25_weights
from citeflow.data.citation_graph import CitationGraph
from citeflow.evaluation.baselines import Baselines
from citeflow.evaluation.scoring import build_structural_features
from citeflow.graph.preparation import write_prepared
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.meta_paths import BASELINE_PATHS
from citeflow.utils.usage import StageMeter

RAW = files.Manifest(kind="RawDataset", sha256="0" * 64, inputs={}, facts={}, files={})
WORDS = ["graph", "citation", "neural", "string", "gauge", "brane", "soliton", "vacuum"]


def textbook(query, text, texts):
    """BM25 with k1 = 1.2 and b = 0.75, each word of the query counted once."""
    mean = sum(map(len, texts)) / len(texts)
    score = 0.0
    for word in set(query):
        num = sum(word in each for each in texts)
        idf = math.log(1 + (len(texts) - num + 0.5) / (num + 0.5))
        count = Counter(text)[word]
        score += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(text) / mean))
    return score


def test_bm25_is_kept_with_the_graph_and_equals_the_textbook(tmp_path):
    rng = np.random.default_rng(0)
    texts = [rng.choice(WORDS, rng.integers(1, 12)).tolist() for _ in range(80)]
    texts[3] = []
    graph = CitationGraph(
        edge_2E=np.sort(rng.integers(0, 80, (2, 500), dtype=np.int32), axis=0)[::-1],
        id_N=np.arange(80),
        bm25_NV=bm25_weights([" ".join(words) for words in texts]),
    )
    settings = config.load(overrides=["data.eval_negatives=20"])
    write_prepared(graph, tmp_path / "graph", config=settings.data, raw=RAW, meter=StageMeter())
    prepared = PreparedGraph.open(tmp_path / "graph")
    ids = prepared.ids()
    structural = build_structural_features(prepared, settings.model)
    baselines = Baselines(prepared, structural)
    source_P = np.array([0, 17, ids.index(3)])
    candidate_PK = rng.integers(0, 80, (3, 30))
    sums = structural.sum_own(BASELINE_PATHS, source_P, candidate_PK)
    found = dict(baselines(sums, source_P, candidate_PK))
    assert list(found)[-1] == "bm25"
    shared = dict(baselines(sums, source_P, candidate_PK[0]))
    assert np.array_equal(shared["bm25"][0], found["bm25"][0])
    for source, candidate_K, score_K in zip(source_P, candidate_PK, found["bm25"], strict=True):
        expected = [textbook(texts[ids[source]], texts[ids[j]], texts) for j in candidate_K]
        assert score_K == pytest.approx(expected, rel=1e-5)


def test_texts_that_share_no_word_have_no_bm25():
    assert bm25_weights(["alpha", "beta", ""]) is None


def test_cosine_of_features_of_16_bits_is_that_of_32():
    graph = graph_of(60)
    # Products of such numbers are too large for 16 bits.
    half_NF = (1e4 * graph.x_NF).astype(np.float16)
    source_P, candidate_PK = np.array([4, 20]), np.tile(np.arange(60), (2, 1))
    scores = []
    for x_NF in (half_NF, half_NF.astype(np.float32)):
        one = dataclasses.replace(graph, x_NF=x_NF)
        structural = build_structural_features(one, ModelConfig())
        sums = structural.sum_own(BASELINE_PATHS, source_P, candidate_PK)
        with patch.object(PreparedGraph, "bm25", lambda _: None):
            scores.append(dict(Baselines(one, structural)(sums, source_P, candidate_PK))["cosine"])
    assert np.isfinite(scores[0]).all()
    assert np.array_equal(*scores)
