"""PreparedGraphs without files, and models for them.

Legend: N papers, P sources.
"""

from pathlib import Path

import numpy as np
import torch

from citeflow.config import ModelConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation.scoring import build_structural_features
from citeflow.graph.csr import build_csr, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.tensors import encoder_input

NUM_FEATURES = 4


def held_out(num_citations, num_papers, *, seed=0, num_negatives=5):
    rng = np.random.default_rng(seed)
    return HeldOut(
        source_P=rng.integers(0, num_papers, num_citations).astype(np.int32),
        target_P=rng.integers(0, num_papers, num_citations).astype(np.int32),
        negative_PK=rng.integers(0, num_papers, (num_citations, num_negatives)).astype(np.int32),
    )


def graph_of(num_papers, *, features=True):
    """A graph whose arrays are read-only, as maps are. The last papers have no neighbors."""
    rng = np.random.default_rng(0)
    is_cited_NN = np.triu(rng.random((num_papers, num_papers)) < 0.1, 1)
    is_cited_NN[:, -3:] = False
    references = build_csr(*np.nonzero(is_cited_NN), num_papers)
    graph = PreparedGraph(
        path=Path(),
        manifest=None,
        facts=None,
        x_NF=rng.normal(size=(num_papers, NUM_FEATURES)).astype(np.float32) if features else None,
        day_N=rng.integers(0, 4000, num_papers).astype(np.int32),
        references=references,
        citations=transpose(references),
        neighbors=to_undirected(references),
        valid=held_out(300, num_papers),
        test=held_out(10, num_papers),
    )
    for array in (graph.x_NF, graph.day_N, graph.neighbors.col_E, graph.neighbors.rowptr_N1):
        if array is not None:
            array.flags.writeable = False
    return graph


def model_of(graph, **changes):
    """A model in evaluation mode that scales its input."""
    torch.manual_seed(0)
    config = ModelConfig(**{"hidden_channels": 6, **changes})
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config)
    num_features = 1 if x_NF is None else x_NF.shape[1]
    num_structural = len(build_structural_features(graph, config).names)
    model = LinkPredictor(num_features, num_structural, config, scaled=True)
    model.encoder.mean_F = torch.randn(num_features)
    model.encoder.scale_F = torch.rand(num_features) + 0.5
    return model.eval()
