"""Inference: embed every paper, layer by layer, in one or more processes; or a single new one.

Legend: N papers, B papers of a chunk, C papers of its bipartite block (B and their neighbors),
R neighbors of a new paper, F features, H hidden channels.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.data.features import release_pages
from citeflow.errors import ConfigError
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.own import FILE, OwnEncoder
from citeflow.models.sage import GraphSAGE
from citeflow.models.tensors import encoder_input, gather_features, to_sparse_tensor
from citeflow.utils.large_arrays import large_array

CHUNK = 32_768
"""Papers that are embedded at once."""


class RowSharing(Protocol):
    """Processes that each compute some rows of an array that all of them read."""

    def rows(self, num_rows: int) -> range:
        """Return the rows that this process computes."""

    def empty(self, num_rows: int, width: int) -> Tensor:
        """Return a float32 array in main memory or on the disk."""

    def all_gather_rows(self, x: Tensor) -> None:
        """Wait until every process has computed its rows, and fetch those of other machines."""


class SingleProcess:
    """A process that computes all rows itself."""

    def rows(self, num_rows: int) -> range:
        """Return all rows."""
        return range(num_rows)

    def empty(self, num_rows: int, width: int) -> Tensor:
        """Return an array of this process."""
        return torch.from_numpy(large_array((num_rows, width)))

    def all_gather_rows(self, x: Tensor) -> None:
        """Do nothing: there is nobody to wait for."""


@torch.no_grad()
def embed_all(
    model: LinkPredictor, graph: PreparedGraph, sharing: RowSharing | None = None
) -> Tensor:
    """Embed every paper from all neighbors, with the values of two layers in memory at a time.

    Neighbors are not sampled here: layer by layer each paper is computed once per layer, where
    chunks of papers on their own would need the neighborhoods of all hops (as PyG's layer-wise
    inference).

    An encoder of one's own has no layers that citeflow knows: every process computes all papers at
    once, and keeps its rows.

    Args:
        model: the weights; it is in the mode that it was in before when this returns.
        graph: the papers.
        sharing: the processes that call this at the same time; None for this one alone.

    Returns:
        [N, H] in main memory or, where it would fill that, on the disk.
    """
    sharing = sharing or SingleProcess()
    was_training = model.training
    model.eval()
    if isinstance(model.encoder, OwnEncoder):
        embedding_NH = _embed_at_once(model.encoder, model.config, graph, sharing)
        model.train(was_training)
        return embedding_NH
    x_NH: Tensor | None = None
    for layer in range(max(1, model.config.num_layers)):
        above_NH = sharing.empty(graph.num_papers, model.config.hidden_channels)
        own = sharing.rows(graph.num_papers)
        for first in range(own.start, own.stop, CHUNK):
            chunk = range(first, min(first + CHUNK, own.stop))
            above_NH[chunk.start : chunk.stop] = _embed_chunk(
                model.encoder, model.config, graph, chunk, layer, x_NH
            )
        sharing.all_gather_rows(above_NH)
        if x_NH is None and graph.x_NF is not None:
            release_pages(graph.x_NF)
        x_NH = above_NH
    model.train(was_training)
    assert x_NH is not None
    return x_NH


def _embed_at_once(
    encoder: OwnEncoder, config: ModelConfig, graph: PreparedGraph, sharing: RowSharing
) -> Tensor:
    """Compute the rows of this process, [N, H], by one pass over the whole graph."""
    shared_NH = sharing.empty(graph.num_papers, config.hidden_channels)
    own = sharing.rows(graph.num_papers)
    device = encoder.mean_F.device
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config)
    x = gather_features(x_NF, np.arange(graph.num_papers)).to(device)
    embedding_NH = encoder(x, to_sparse_tensor(graph.neighbors, graph.num_papers).to(device))
    shared_NH[own.start : own.stop] = embedding_NH[own.start : own.stop].cpu()
    sharing.all_gather_rows(shared_NH)
    return shared_NH


def _embed_chunk(
    encoder: GraphSAGE,
    config: ModelConfig,
    graph: PreparedGraph,
    chunk: range,
    layer: int,
    below_NH: Tensor | None,
) -> Tensor:
    """Compute a layer for some papers, from the layer below or from the papers' features."""
    device = encoder.mean_F.device
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config)
    if not config.num_layers:
        x_BF = gather_features(x_NF, np.array(chunk))
        return encoder.transform_features(x_BF.to(device)).cpu()
    paper_C, adj_BC = _bipartite_block(graph, chunk)
    if below_NH is None:
        x_C = encoder.transform_features(gather_features(x_NF, paper_C).to(device))
    else:
        x_C = below_NH.index_select(0, torch.from_numpy(paper_C)).to(device)
    # The papers of the chunk are consecutive, in the block as well: no neighbor lies between them.
    first = int(np.searchsorted(paper_C, chunk.start))
    x_B = x_C[first : first + len(chunk)]
    return encoder.layer(layer, x_C, x_B, adj_BC.to(device)).cpu()


def _bipartite_block(graph: PreparedGraph, chunk: range) -> tuple[np.ndarray, Tensor]:
    """Return the papers of a chunk with their neighbors, ascending, and the adjacency [B, C]."""
    rowptr_B1 = graph.neighbors.rowptr_N1[chunk.start : chunk.stop + 1]
    col_E = graph.neighbors.col_E[rowptr_B1[0] : rowptr_B1[-1]]
    position_N = np.zeros(graph.num_papers, dtype=np.int32)
    position_N[col_E] = 1
    position_N[chunk.start : chunk.stop] = 1
    paper_C = np.flatnonzero(position_N)
    position_N[paper_C] = np.arange(len(paper_C), dtype=np.int32)
    adj = Csr(rowptr_B1 - rowptr_B1[0], position_N[col_E])
    return paper_C, to_sparse_tensor(adj, len(paper_C))


@torch.no_grad()
def embed_new(
    model: LinkPredictor, graph: PreparedGraph, x_F: np.ndarray | None, neighbor_R: np.ndarray
) -> Tensor:
    """Embed a paper that is not in the graph, from the papers around it alone.

    Its neighbors do not see it: their values are those that `embed_all` gives them, computed for as
    many papers as the layers reach.

    Args:
        model: the weights, in the mode for evaluation.
        graph: the papers that it may be linked with.
        x_F: its features; None where papers have none.
        neighbor_R: rows that it is linked with, ascending.

    Returns:
        [H].
    """
    encoder = model.encoder
    if isinstance(encoder, OwnEncoder):
        hint = "it embeds the papers of its graph alone"
        raise ConfigError("a new paper for a model with code of its own", FILE, hint=hint)
    num_layers = model.config.num_layers
    x_NF = encoder_input(graph.x_NF, graph.num_papers + 1, model.config)
    if x_F is None and x_NF is not None:
        x_F = x_NF[-1]  # random features, those that one more paper of the graph would have
    x_1F = None if x_NF is None or x_F is None else x_F[None]
    x_1 = encoder.transform_features(gather_features(x_1F, np.zeros(1, np.int64)))
    if not num_layers:
        return x_1[0]
    needed = [neighbor_R.astype(np.int64)]  # papers whose values the last layer takes, and below
    for _ in range(num_layers - 1):
        needed.append(np.union1d(needed[-1], rows_of(graph.neighbors, needed[-1]).col_E))
    paper_C = needed.pop()
    x_C = encoder.transform_features(gather_features(x_NF, paper_C))
    for layer in range(num_layers):
        x_1 = encoder.layer(layer, *_join(x_C, x_1, np.searchsorted(paper_C, neighbor_R)))
        if needed:
            paper_B = needed.pop()
            adj = rows_of(graph.neighbors, paper_B)
            adj_BC = Csr(adj.rowptr_N1, np.searchsorted(paper_C, adj.col_E))
            x_B = x_C[torch.from_numpy(np.searchsorted(paper_C, paper_B))]
            x_C = encoder.layer(layer, x_C, x_B, to_sparse_tensor(adj_BC, len(paper_C)))
            paper_C = paper_B
    return x_1[0]


def _join(x_C: Tensor, x_1: Tensor, position_R: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Return the arguments of a layer for one paper with some neighbors."""
    adj_1R = Csr(np.array([0, len(position_R)]), np.arange(len(position_R)))
    return x_C[torch.from_numpy(position_R)], x_1, to_sparse_tensor(adj_1R, len(position_R))
