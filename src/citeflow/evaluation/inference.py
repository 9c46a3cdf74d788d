"""Embeds every paper, layer by layer, the ranks sharing the work.

Legend: N papers, B papers of a piece, C papers that they listen to, F features, H width.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from citeflow.data.features import release_pages
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.tensors import encoder_input, features_of, sparse

PIECE = 32_768
"""Papers embedded at once."""


class Ranks(Protocol):
    """Processes that each compute some rows of an array that all of them read."""

    def rows(self, num_rows: int) -> range:
        """The rows that this process computes."""

    def empty(self, num_rows: int, width: int) -> Tensor:
        """A float32 array in main memory."""

    def all_gather_rows(self, x: Tensor) -> None:
        """Wait until every process has its rows done, and the others' rows are here."""


class SingleProcess:
    """One process does it all."""

    def rows(self, num_rows: int) -> range:
        """All of them."""
        return range(num_rows)

    def empty(self, num_rows: int, width: int) -> Tensor:
        """An array of this process."""
        return torch.empty(num_rows, width)

    def all_gather_rows(self, x: Tensor) -> None:
        """Nothing to wait for."""


@torch.no_grad()
def embed_all(model: LinkPredictor, graph: PreparedGraph, ranks: Ranks | None = None) -> Tensor:
    """Embed every paper from all of its neighbours, [N, H]; the values of two layers are in memory at a time.

    Args:
        ranks: those that share the work and call this at the same time; None for this process alone.
    """
    ranks = ranks or SingleProcess()
    was_training = model.training
    model.eval()
    x_NH: Tensor | None = None
    for layer in range(max(1, model.config.num_layers)):
        above_NH = ranks.empty(graph.num_papers, model.config.hidden_channels)
        mine = ranks.rows(graph.num_papers)
        for first in range(mine.start, mine.stop, PIECE):
            piece = range(first, min(first + PIECE, mine.stop))
            above_NH[piece.start : piece.stop] = _embed_piece(model, graph, piece, layer, x_NH)
        ranks.all_gather_rows(above_NH)
        if x_NH is None and graph.x_NF is not None:
            release_pages(graph.x_NF)
        x_NH = above_NH
    model.train(was_training)
    assert x_NH is not None
    return x_NH


def _embed_piece(
    model: LinkPredictor, graph: PreparedGraph, piece: range, layer: int, below_NH: Tensor | None
) -> Tensor:
    """Values of some papers in a layer from those of the layer below, or from the papers' features."""
    encoder, config = model.encoder, model.config
    paper_C, adjacency_BC = (
        _listened_to(graph, piece) if config.num_layers else (np.array(piece), None)
    )
    device = encoder.mean_F.device
    if below_NH is None:
        x_C = encoder.entry(
            features_of(encoder_input(graph.x_NF, graph.num_papers, config), paper_C).to(device)
        )
    else:
        x_C = below_NH.index_select(0, torch.from_numpy(paper_C)).to(device)
    if adjacency_BC is None:
        return x_C.cpu()
    own = int(np.searchsorted(paper_C, piece.start))
    return encoder.layer(layer, x_C, x_C[own : own + len(piece)], adjacency_BC.to(device)).cpu()


def _listened_to(graph: PreparedGraph, piece: range) -> tuple[np.ndarray, Tensor]:
    """Papers of a piece together with their neighbours, ascending, and who listens to whom, sparse [B, C]."""
    ptr_B1 = graph.neighbors.ptr_N1[piece.start : piece.stop + 1]
    index_E = graph.neighbors.index_E[ptr_B1[0] : ptr_B1[-1]]
    place_N = np.zeros(graph.num_papers, dtype=np.int32)
    place_N[index_E] = 1
    place_N[piece.start : piece.stop] = 1
    paper_C = np.flatnonzero(place_N)
    place_N[paper_C] = np.arange(len(paper_C), dtype=np.int32)
    return paper_C, sparse(Csr(ptr_B1 - ptr_B1[0], place_N[index_E]), len(paper_C))
