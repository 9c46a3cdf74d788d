"""Scores from a trained model and the embeddings of all papers: the candidates of each source.

Legend: N papers, H width, P sources, K candidates, D kinds of evidence.
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

PAIRS = 1 << 17
"""Pairs of a source and a candidate scored at once, which bounds the memory that scoring takes."""


def structural_features_of(graph: PreparedGraph, config: ModelConfig) -> StructuralFeatures:
    """The evidence that a graph's training citations hold."""
    return StructuralFeatures(
        graph.references,
        graph.citations,
        graph.neighbors,
        graph.day_N,
        hops=config.structural_hops,
    )


@torch.no_grad()
def score_candidates(
    model: LinkPredictor,
    embedding_NH: Tensor,
    structural: StructuralFeatures,
    source_P: np.ndarray,
    candidate_PK: np.ndarray,
) -> np.ndarray:
    """Logits of each source's own candidates, float32 [P, K], source by source: so few embeddings stay in the cache."""
    device = model.encoder.mean_F.device
    evidence_PKD = (
        torch.from_numpy(structural.for_candidates(source_P, candidate_PK))
        if model.uses_evidence
        else None
    )
    scores = np.empty(candidate_PK.shape, dtype=np.float32)
    for i, source in enumerate(source_P.tolist()):
        target_KH = embedding_NH.index_select(0, torch.from_numpy(candidate_PK[i])).to(device)
        score_1K = model.embedded(embedding_NH[source : source + 1].to(device), target_KH)
        if evidence_PKD is not None:
            score_1K = model.joined(score_1K, evidence_PKD[i : i + 1].to(device))
        scores[i] = score_1K.cpu().numpy()
    return scores


def pieces_of(held_out: HeldOut) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sources with their candidates, the cited paper first and its negatives behind it, some sources at a time."""
    sources = max(1, PAIRS // (1 + held_out.negative_PK.shape[1]))
    for first in range(0, len(held_out.source_P), sources):
        piece = slice(first, first + sources)
        candidate_PK = np.concatenate(
            [held_out.target_P[piece, None], held_out.negative_PK[piece]], axis=1
        )
        yield np.asarray(held_out.source_P[piece]), candidate_PK


def score_held_out(
    model: LinkPredictor, embedding_NH: Tensor, structural: StructuralFeatures, held_out: HeldOut
) -> np.ndarray:
    """Logits of held-out citations (column 0) and of their negatives, float32 [P, 1 + K]."""
    scored = [
        score_candidates(model, embedding_NH, structural, source_P, candidate_PK)
        for source_P, candidate_PK in pieces_of(held_out)
    ]
    return np.concatenate(scored)


def part_of(held_out: HeldOut, *, most: int, rank: int = 0, world_size: int = 1) -> HeldOut:
    """An even sample of at most `most` held-out citations, dealt to the ranks."""
    total = len(held_out.source_P)
    chosen = np.linspace(0, total - 1, min(most, total)).astype(np.int64)[rank::world_size]
    return HeldOut(
        source_P=held_out.source_P[chosen],
        target_P=held_out.target_P[chosen],
        negative_PK=held_out.negative_PK[chosen],
    )
