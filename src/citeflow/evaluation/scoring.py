"""Score the candidates of sources, from a trained model and the embeddings of all papers.

Legend: N papers, H hidden channels, P sources, K candidates, D structural features, U papers whose
rows are held.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation.chunks import Chunk, random_chunks
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.structural import StructuralFeatures
from citeflow.utils.large_arrays import is_on_disk, read_ahead, rows_in_order, rows_that_fit


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


@dataclass(frozen=True, slots=True)
class PaperRows:
    """Rows that pairs are scored from, of all papers, or of some, which then are in memory."""

    embedding_NH: Tensor
    structural: StructuralFeatures
    paper_U: np.ndarray | None = None
    """Papers that the embeddings are of, ascending; None for all."""

    def groups(
        self, model: LinkPredictor, chunks: Iterable[Chunk]
    ) -> Iterator[tuple["PaperRows", Iterable[Chunk]]]:
        """Divide chunks into groups, and have the rows that a model takes in memory for each.

        A disk takes longer to look for a row than to read the next hundred, and candidates are in
        no order; so for each group what lies on the disk is read once from front to back.
        """
        x_NF = self.structural.x_NF if model.uses_structural_features else None
        arrays = [self.embedding_NH.numpy(), *([] if x_NF is None else [x_NF])]
        if not any(is_on_disk(array) for array in arrays):
            yield self, chunks
            return
        for group in _groups(chunks, rows_that_fit(*arrays)):
            papers = [np.append(chunk.source_P, chunk.candidate_PK) for chunk in group]
            paper_U = np.unique(np.concatenate(papers))
            yield self._holding(paper_U, with_features=x_NF is not None), group

    def only(self, paper_U: np.ndarray) -> "PaperRows":
        """Return a copy of the embeddings of some papers, ascending, without the others."""
        embedding_UH = rows_in_order(self.embedding_NH.numpy(), self.positions(paper_U))
        return PaperRows(torch.from_numpy(embedding_UH), self.structural, paper_U)

    def positions(self, paper: np.ndarray) -> np.ndarray:
        """Return the rows of some papers among the embeddings."""
        return paper if self.paper_U is None else np.searchsorted(self.paper_U, paper)

    def _holding(self, paper_U: np.ndarray, *, with_features: bool) -> "PaperRows":
        structural = self.structural.holding(paper_U) if with_features else self.structural
        rows = dataclasses.replace(self, structural=structural)
        return rows.only(paper_U) if is_on_disk(self.embedding_NH.numpy()) else rows


def _groups(chunks: Iterable[Chunk], num_papers: int) -> Iterator[list[Chunk]]:
    """Collect chunks with at most so many papers, one of them at least."""
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        chunk_size = len(chunk.source_P) + chunk.candidate_PK.size
        if group and size + chunk_size > num_papers:
            yield group
            group, size = [], 0
        group.append(chunk)
        size += chunk_size
    if group:
        yield group


def score_candidates(
    model: LinkPredictor, rows: PaperRows, source_P: np.ndarray, candidate_PK: np.ndarray
) -> np.ndarray:
    """Compute the logits of each source's own candidates, float32 [P, K]."""
    structural_PKD = None
    if model.uses_structural_features:
        structural_PKD = rows.structural.for_candidates(source_P, candidate_PK)
    return score_pairs(model, rows, source_P, candidate_PK, structural_PKD)


@torch.no_grad()
def score_pairs(
    model: LinkPredictor,
    rows: PaperRows,
    source_P: np.ndarray,
    candidates: np.ndarray,
    structural_PKD: np.ndarray | None,
) -> np.ndarray:
    """Compute logits from embeddings and structural features, float32 [P, K].

    Args:
        model: the weights.
        rows: of the sources and candidates.
        source_P: sources.
        candidates: of each source [P, K], or [K] where all sources share them.
        structural_PKD: features of the pairs, if the model uses them.
    """
    device = model.encoder.mean_F.device
    embedding_NH = rows.embedding_NH
    source_P, candidates = rows.positions(source_P), rows.positions(candidates)
    scores = np.empty((len(source_P), candidates.shape[-1]), dtype=np.float32)
    row_U = np.append(source_P, candidates)
    read_ahead(embedding_NH.numpy(), row_U, row_U + 1)
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


def score_held_out(model: LinkPredictor, rows: PaperRows, held_out: HeldOut) -> np.ndarray:
    """Compute the logits of held-out citations (column 0) and negatives; float32 [P, 1 + K]."""
    chunks = random_chunks(held_out, np.arange(len(held_out.source_P)))
    return np.concatenate(
        [
            score_candidates(model, held, chunk.source_P, chunk.candidate_PK)
            for held, group in rows.groups(model, chunks)
            for chunk in group
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
