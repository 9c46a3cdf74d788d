"""Score the candidates of sources, from a trained model and the embeddings of all papers.

Legend: N papers, H hidden channels, P sources, K candidates, D structural features.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.structural import StructuralFeatures
from citeflow.utils.large_arrays import read_ahead

PAIRS = 1 << 17
"""Pairs of a source and a candidate that are scored at once, which bounds the memory for it."""


def build_structural_features(graph: PreparedGraph, config: ModelConfig) -> StructuralFeatures:
    """Return the structural features of pairs in a graph's training citations."""
    return StructuralFeatures(
        graph.references,
        graph.citations,
        graph.neighbors,
        graph.day_N,
        hops=config.structural_hops,
        similar=graph.similar,
        x_NF=None if config.features == "ones" else graph.x_NF,
    )


def score_candidates(
    model: LinkPredictor,
    embedding_NH: Tensor,
    structural: StructuralFeatures,
    source_P: np.ndarray,
    candidate_PK: np.ndarray,
) -> np.ndarray:
    """Compute the logits of each source's own candidates, float32 [P, K]."""
    structural_PKD = None
    if model.uses_structural_features:
        structural_PKD = structural.for_candidates(source_P, candidate_PK)
    return score_pairs(model, embedding_NH, source_P, candidate_PK, structural_PKD)


@torch.no_grad()
def score_pairs(
    model: LinkPredictor,
    embedding_NH: Tensor,
    source_P: np.ndarray,
    candidates: np.ndarray,
    structural_PKD: np.ndarray | None,
) -> np.ndarray:
    """Compute logits from embeddings and structural features, float32 [P, K].

    Args:
        model: the weights.
        embedding_NH: of all papers.
        source_P: sources.
        candidates: of each source [P, K], or [K] where all sources share them.
        structural_PKD: features of the pairs, if the model uses them.
    """
    device = model.encoder.mean_F.device
    scores = np.empty((len(source_P), candidates.shape[-1]), dtype=np.float32)
    papers = np.append(source_P, candidates)
    read_ahead(embedding_NH.numpy(), papers, papers + 1)
    target_KH = torch.empty(0)
    # Source by source, so that the embeddings of one source's candidates stay in the cache.
    for i, source in enumerate(source_P.tolist()):
        if not i or candidates.ndim == 2:
            candidate_K = candidates if candidates.ndim == 1 else candidates[i]
            target_KH = embedding_NH.index_select(0, torch.from_numpy(candidate_K)).to(device)
        score_1K = model.score_embeddings(embedding_NH[source : source + 1].to(device), target_KH)
        if structural_PKD is not None:
            structural_1KD = torch.from_numpy(structural_PKD[i : i + 1]).to(device)
            score_1K = model.add_structural_score(score_1K, structural_1KD)
        scores[i] = score_1K.cpu().numpy()
    return scores


def iter_chunks(held_out: HeldOut) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some sources at a time with their candidates: the cited paper, then its negatives."""
    size = max(1, PAIRS // (1 + held_out.negative_PK.shape[1]))
    for first in range(0, len(held_out.source_P), size):
        chunk = slice(first, first + size)
        candidate_PK = np.concatenate(
            [held_out.target_P[chunk, None], held_out.negative_PK[chunk]], axis=1
        )
        yield np.asarray(held_out.source_P[chunk]), candidate_PK


def score_held_out(
    model: LinkPredictor, embedding_NH: Tensor, structural: StructuralFeatures, held_out: HeldOut
) -> np.ndarray:
    """Compute the logits of held-out citations (column 0) and negatives; float32 [P, 1 + K]."""
    return np.concatenate(
        [
            score_candidates(model, embedding_NH, structural, source_P, candidate_PK)
            for source_P, candidate_PK in iter_chunks(held_out)
        ]
    )


def even_rows(row_P: np.ndarray, most: int) -> np.ndarray:
    """Take at most so many of some rows, at even distances."""
    chosen = np.linspace(0, len(row_P) - 1, min(most, len(row_P))).astype(np.int64)
    return row_P[chosen]


def sample_held_out(held_out: HeldOut, *, most: int, rank: int = 0, world_size: int = 1) -> HeldOut:
    """Return this rank's share of an even sample of at most `most` held-out citations."""
    chosen = even_rows(np.arange(len(held_out.source_P)), most)[rank::world_size]
    return HeldOut(
        source_P=held_out.source_P[chosen],
        target_P=held_out.target_P[chosen],
        negative_PK=held_out.negative_PK[chosen],
    )
