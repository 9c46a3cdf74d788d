"""Inference: embed every paper, layer by layer, in one or more processes; or a single new one.

A layer of all papers may be larger than the memory. So it is read from its first row to its last,
and added up over the neighbors of as many papers at a time as there is room for.

Legend: N papers, P papers of a pass, S papers that are read at once, B papers of a chunk, R
neighbors of a new paper, F features or, in a higher layer, channels, H hidden channels.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.data.features import release_pages
from citeflow.errors import ConfigError
from citeflow.graph.csr import Csr, as_matrix, rows_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.own import FILE, OwnEncoder
from citeflow.models.sage import GraphSAGE
from citeflow.models.tensors import (
    blocks_of_rows,
    encoder_input,
    gather_features,
    to_sparse_tensor,
)
from citeflow.utils.large_arrays import LARGEST_SHARE, large_array, read_ahead
from citeflow.utils.system import memory_limit

CHUNK = 32_768
"""Papers that are computed at once from what their neighbors add up to."""

READ = 1 << 24
"""Values of the layer below that are read at once, 64 MB; more only where a chunk has more."""

PASSES = 4
"""Passes over the layer below, at least. The more of them, the less memory the sums take."""

ReadRows = Callable[[slice], Tensor]
"""Reads rows of the layer below, [S, F]; they are valid until it is called again."""


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
    """Embed every paper from all neighbors, with the values of two layers at a time.

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
    own = sharing.rows(graph.num_papers)
    read = _features(model.encoder, model.config, graph)
    x_NH = torch.empty(0)
    for layer in range(max(1, model.config.num_layers)):
        x_NH = sharing.empty(graph.num_papers, model.config.hidden_channels)
        if model.config.num_layers:
            _embed_rows(model.encoder, layer, graph.neighbors, read, x_NH, own)
        else:
            for chunk in _slices(own, CHUNK):
                x_NH[chunk] = read(chunk)
        sharing.all_gather_rows(x_NH)
        if not layer and graph.x_NF is not None:
            release_pages(graph.x_NF)
        read = functools.partial(_read_in_order, x_NH)
    model.train(was_training)
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


def _features(encoder: GraphSAGE, config: ModelConfig, graph: PreparedGraph) -> ReadRows:
    """Return how to read what the first layer takes or, with no layers, the embeddings."""
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config)
    width = len(encoder.mean_F) if config.num_layers else config.hidden_channels
    # The same memory each time: new pages from the kernel take longer than the values.
    result_SF = torch.empty(rows_at_once(width), width)

    def read(rows: slice) -> Tensor:
        num_rows = rows.stop - rows.start
        if x_NF is None:
            x_SF = torch.ones(num_rows, 1)
        else:
            x_SF = _read_in_order(torch.from_numpy(np.asarray(x_NF)), rows)
        for block in blocks_of_rows(num_rows, encoder.mean_F):
            x_BF = x_SF[block].to(encoder.mean_F.device)
            result_SF[:num_rows][block] = encoder.transform_features(x_BF).cpu()
        return result_SF[:num_rows]

    return read


def _read_in_order(x_NF: Tensor, rows: slice) -> Tensor:
    """Return some rows, and have the kernel read as many behind them while they are used."""
    end = min(2 * rows.stop - rows.start, len(x_NF))
    read_ahead(x_NF.numpy(), rows.stop, end)
    return x_NF[rows]


def _embed_rows(
    encoder: GraphSAGE, layer: int, adj: Csr, read: ReadRows, x_NH: Tensor, rows: range
) -> None:
    """Compute some rows of a layer, in passes over the whole layer below."""
    device = encoder.mean_F.device
    size = 4 * adj.num_rows * read(slice(0, 1)).shape[1]
    for papers in _slices(rows, papers_of_pass(len(rows), size, memory_limit())):
        aggregated_PF = _aggregate(encoder.config.aggr, adj, papers, read)
        for chunk in _slices(range(papers.start, papers.stop), CHUNK):
            aggregated_BF = aggregated_PF[chunk.start - papers.start : chunk.stop - papers.start]
            x_BF = read(chunk).to(device)
            x_NH[chunk] = encoder.combine(layer, aggregated_BF.to(device), x_BF).cpu()


def papers_of_pass(num_rows: int, size: int, allowed: float) -> int:
    """Return the papers whose neighbors are added up in one pass over the layer below.

    They are whole chunks, so that any number of passes computes the same papers together.

    Args:
        num_rows: papers that the process computes.
        size: of the layer below, in bytes.
        allowed: bytes that all processes may use.
    """
    passes = max(PASSES, size / (LARGEST_SHARE * allowed))
    return min(num_rows, CHUNK * math.ceil(num_rows / passes / CHUNK))


def _aggregate(aggr: str, adj: Csr, papers: slice, read: ReadRows) -> Tensor:
    """Aggregate the neighbors of some papers, [P, F], in one pass over the layer below."""
    degree_P1 = torch.from_numpy(np.diff(adj.rowptr_N1[papers.start : papers.stop + 1]))[:, None]
    empty = -math.inf if aggr == "max" else 0.0
    result_PF = torch.full((len(degree_P1), read(slice(0, 1)).shape[1]), empty)
    for rows in _slices(range(adj.num_rows), rows_at_once(result_PF.shape[1])):
        adj_PS = _columns(adj, rows, papers)
        if not len(adj_PS.col_E):
            continue
        sparse_PS = to_sparse_tensor(adj_PS, rows.stop - rows.start)
        if aggr == "max":
            largest_PF = torch.sparse.mm(sparse_PS, read(rows), "amax")
            # torch gives 0 to rows without an entry.
            largest_PF.masked_fill_(torch.from_numpy(adj_PS.degree_N == 0)[:, None], empty)
            torch.maximum(result_PF, largest_PF, out=result_PF)
        else:
            result_PF.addmm_(sparse_PS, read(rows))
    if aggr == "mean":
        result_PF.div_(degree_P1.clamp(min=1))
    return result_PF.masked_fill_(degree_P1 == 0, 0.0)


def _columns(adj: Csr, rows: slice, columns: slice) -> Csr:
    """Return the columns of some rows of a symmetric adjacency, turned: [columns, rows]."""
    rowptr_S1 = adj.rowptr_N1[rows.start : rows.stop + 1]
    col_E = adj.col_E[rowptr_S1[0] : rowptr_S1[-1]]
    ones_E = np.ones(len(col_E), dtype=np.int8)
    matrix = as_matrix(rowptr_S1 - rowptr_S1[0], col_E, ones_E, adj.num_rows)[:, columns]
    turned = scipy.sparse.csr_matrix(matrix.T)
    return Csr(turned.indptr, turned.indices)


def rows_at_once(width: int) -> int:
    """Return the rows of the layer below, of so many values, that are read at once."""
    return max(CHUNK, READ // width)


def _slices(rows: range, size: int) -> Iterator[slice]:
    for first in range(rows.start, rows.stop, max(1, size)):
        yield slice(first, min(first + size, rows.stop))


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
