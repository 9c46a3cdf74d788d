"""Inference: embed every paper, layer by layer, in one or more processes; or a single new one.

A layer of all papers may be larger than the memory. So its rows are read in their order, and added
up over the neighbors of as many papers at a time as there is room for. A row that none of these has
as a neighbor is not read; in the order that `graph.reorder` gives papers that is most of them.

Legend: N papers, P papers of a pass, S papers that are read at once, B papers of a chunk, R
neighbors of a new paper, F features or, in a higher layer, channels, H hidden channels, W the wider
of both.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from citeflow.utils.system import malloc_trim, memory_limit

CHUNK = 32_768
"""Papers that are computed at once from what their neighbors add up to."""

PASSES = 4
"""Passes over the layer below, at least. The more of them, the less memory the sums take."""

PARTS = 4
"""Parts of the papers of a pass, as many rows as which are read of the layer below at once."""


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
    elif not model.config.num_layers:
        embedding_NH = _embed_features(model.encoder, model.config, graph, sharing)
    else:
        embedding_NH = _embed_by_layer(model.encoder, model.config, graph, sharing)
    model.train(was_training)
    malloc_trim()  # the heap of a worker keeps what is freed
    return embedding_NH


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


def _embed_features(
    encoder: GraphSAGE, config: ModelConfig, graph: PreparedGraph, sharing: RowSharing
) -> Tensor:
    """Compute the rows of this process, [N, H], with no layers: from each paper's own features."""
    embedding_NH = sharing.empty(graph.num_papers, config.hidden_channels)
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config)
    for rows in _slices(sharing.rows(graph.num_papers), CHUNK):
        x_BF = gather_features(x_NF, np.arange(rows.start, rows.stop)).to(encoder.mean_F.device)
        embedding_NH[rows] = encoder.transform_features(x_BF).cpu()
    sharing.all_gather_rows(embedding_NH)
    if graph.x_NF is not None:
        release_pages(graph.x_NF)
    return embedding_NH


def _embed_by_layer(
    encoder: GraphSAGE, config: ModelConfig, graph: PreparedGraph, sharing: RowSharing
) -> Tensor:
    """Compute the rows of this process, [N, H], and of each layer below, which are exchanged."""
    num_papers, device = graph.num_papers, encoder.mean_F.device
    rows = sharing.rows(num_papers)
    width = max(len(encoder.mean_F), config.hidden_channels)
    size = papers_of_pass(len(rows), 4 * num_papers * width, memory_limit())
    room_SW, sum_PW = torch.empty(rows_at_once(size), width), torch.empty(size, width)
    x_NF = encoder_input(graph.x_NF, num_papers, config)
    below = _LayerBelow(
        torch.ones(1, 1).expand(num_papers, 1) if x_NF is None else torch.from_numpy(x_NF),
        room_SW,
        lambda x_BF: encoder.transform_features(x_BF.to(device)).cpu(),
    )
    for layer in range(config.num_layers):
        x_NH = sharing.empty(num_papers, config.hidden_channels)
        _embed_rows(encoder, layer, graph.neighbors, below, x_NH, rows, sum_PW)
        sharing.all_gather_rows(x_NH)
        if not layer and graph.x_NF is not None:
            release_pages(graph.x_NF)
        below = _LayerBelow(x_NH, room_SW)
    return below.x_NF


@dataclass(frozen=True, slots=True)
class _LayerBelow:
    """Values of all papers, of which some rows are read at a time."""

    x_NF: Tensor
    """In memory or on the disk."""

    room_SW: Tensor
    """Where rows are put. New pages from the kernel would take longer than the values."""

    transform: Callable[[Tensor], Tensor] | None = None
    """What is done with them."""

    def read(self, paper_S: np.ndarray) -> Tensor:
        """Return rows, [S, F]; they are valid until this is called again.

        Args:
            paper_S: ascending.
        """
        read_ahead(self.x_NF.numpy(), paper_S, paper_S + 1)
        x_SF = _part_of(self.room_SW, (len(paper_S), self.x_NF.shape[1]))
        row_S = torch.from_numpy(paper_S)
        if self.x_NF.dtype == x_SF.dtype:
            torch.index_select(self.x_NF, 0, row_S, out=x_SF)
        else:
            for block in blocks_of_rows(len(x_SF), x_SF):
                x_SF[block] = self.x_NF[row_S[block]]
        if self.transform is not None:
            for block in blocks_of_rows(len(x_SF), x_SF):
                x_SF[block] = self.transform(x_SF[block])
        return x_SF


def _part_of(memory: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a tensor of a shape that lies in a larger one."""
    return memory.flatten()[: math.prod(shape)].view(shape)


def _embed_rows(
    encoder: GraphSAGE,
    layer: int,
    adj: Csr,
    below: _LayerBelow,
    x_NH: Tensor,
    rows: range,
    sum_PW: Tensor,
) -> None:
    """Compute some rows of a layer, in passes over the layer below.

    Args:
        encoder: the weights.
        layer: its number.
        adj: neighbors of all papers.
        below: the layer below.
        x_NH: where to; only `rows` are written.
        rows: papers to compute.
        sum_PW: memory for what the neighbors of the papers of a pass add up to.
    """
    device = encoder.mean_F.device
    for papers in _slices(rows, len(sum_PW)):
        aggregated_PF = _aggregate(encoder.config.aggr, adj, papers, below, sum_PW)
        for chunk in _slices(range(papers.start, papers.stop), CHUNK):
            aggregated_BF = aggregated_PF[chunk.start - papers.start : chunk.stop - papers.start]
            x_BF = below.read(np.arange(chunk.start, chunk.stop)).to(device)
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


def _aggregate(aggr: str, adj: Csr, papers: slice, below: _LayerBelow, sum_PW: Tensor) -> Tensor:
    """Aggregate the neighbors of some papers, [P, F], in one pass over the layer below."""
    adj_PN = _rows_by_column(adj, papers)
    degree_P1 = torch.from_numpy(np.diff(adj.rowptr_N1[papers.start : papers.stop + 1]))[:, None]
    empty = -math.inf if aggr == "max" else 0.0
    result_PF = _part_of(sum_PW, (len(degree_P1), below.x_NF.shape[1])).fill_(empty)
    for rows in _slices(range(adj.num_rows), rows_at_once(len(sum_PW))):
        paper_S, adj_PS = _used_columns(adj_PN, rows)
        if not len(paper_S):
            continue
        sparse_PS = to_sparse_tensor(adj_PS, len(paper_S))
        if aggr == "max":
            largest_PF = torch.sparse.mm(sparse_PS, below.read(paper_S), "amax")
            # torch gives 0 to rows without an entry.
            largest_PF.masked_fill_(torch.from_numpy(adj_PS.degree_N == 0)[:, None], empty)
            torch.maximum(result_PF, largest_PF, out=result_PF)
        else:
            result_PF.addmm_(sparse_PS, below.read(paper_S))
    if aggr == "mean":
        result_PF.div_(degree_P1.clamp(min=1))
    return result_PF.masked_fill_(degree_P1 == 0, 0.0)


def _rows_by_column(adj: Csr, rows: slice) -> scipy.sparse.csc_matrix:
    """Return some rows of an adjacency, sorted by column."""
    rowptr_P1 = adj.rowptr_N1[rows.start : rows.stop + 1]
    col_E = adj.col_E[rowptr_P1[0] : rowptr_P1[-1]]
    ones_E = np.ones(len(col_E), dtype=np.int8)
    return as_matrix(rowptr_P1 - rowptr_P1[0], col_E, ones_E, adj.num_rows).tocsc()


def _used_columns(adj_PN: scipy.sparse.csc_matrix, columns: slice) -> tuple[np.ndarray, Csr]:
    """Return those of some columns that have an entry, and the rows of these columns alone."""
    part = adj_PN[:, columns]
    used_S = np.flatnonzero(np.diff(part.indptr))
    rows = part[:, used_S].tocsr()
    return columns.start + used_S, Csr(rows.indptr, rows.indices)


def rows_at_once(papers: int) -> int:
    """Return the rows of the layer below that are read at once for a pass of so many papers."""
    return max(CHUNK, papers // PARTS)


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
