"""OGB's full-batch GraphSAGE for ogbl-citation2, written with PyG: what citeflow is compared with.

    python benchmarks/ogb_recipe.py PREPARED_GRAPH [--epochs 50] [--every 5] [--threads 2]

The recipe is that of OGB's example gnn.py: three SAGEConv layers of 256, a perceptron of three
layers on the Hadamard product, Adam at 0.0005, 65,536 citations a step with one random negative
each, one pass of the whole graph per step. Prints one JSON line per evaluation, the seconds of
training alone among them.

Legend: N papers, H width, P citations, K candidates.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import metrics
from citeflow.evaluation.chunks import random_chunks
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.tensors import to_sparse_tensor

WIDTH, LAYERS, BATCH, LEARNING_RATE, TINY = 256, 3, 65_536, 5e-4, 1e-15


class Recipe(nn.Module):
    """Encoder and predictor."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            SAGEConv(WIDTH if layer else num_features, WIDTH) for layer in range(LAYERS)
        )
        hidden = [
            module for _ in range(LAYERS - 1) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())
        ]
        self.predictor = nn.Sequential(*hidden, nn.Linear(WIDTH, 1))

    def embed(self, x_NF: Tensor, adjacency: Tensor) -> Tensor:
        """Embeddings of all papers, [N, H]."""
        x = x_NF
        for layer, conv in enumerate(self.convs):
            x = conv(x, adjacency)
            x = x.relu() if layer + 1 < LAYERS else x
        return x

    def forward(self, source_H: Tensor, target_H: Tensor) -> Tensor:
        """Logits of pairs of embeddings."""
        score: Tensor = self.predictor(source_H * target_H).squeeze(-1)
        return score


def train(
    graph: PreparedGraph, *, epochs: int, every: int, seed: int = 0
) -> Iterator[dict[str, float]]:
    """Train by the recipe; every few epochs tell how far it came."""
    torch.manual_seed(seed)
    assert graph.x_NF is not None
    x_NF = torch.from_numpy(np.array(graph.x_NF))
    adjacency = to_sparse_tensor(graph.neighbors, graph.num_papers)
    source_E, target_E = torch.from_numpy(graph.references.edges()).long()
    model = Recipe(x_NF.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    seconds = 0.0
    for epoch in range(1, epochs + 1):
        began = time.monotonic()
        losses = [
            _step(model, optimizer, x_NF, adjacency, source_E[part_P], target_E[part_P])
            for part_P in torch.split(torch.randperm(len(source_E)), BATCH)
        ]
        seconds += time.monotonic() - began
        if epoch % every == 0 or epoch == epochs:
            progress = {"epoch": epoch, "seconds": seconds, "loss": float(np.mean(losses))}
            yield {**progress, **_evaluate(model, graph, x_NF, adjacency)}


def _step(
    model: Recipe,
    optimizer: torch.optim.Optimizer,
    x_NF: Tensor,
    adjacency: Tensor,
    source_P: Tensor,
    target_P: Tensor,
) -> float:
    optimizer.zero_grad()
    h_NH = model.embed(x_NF, adjacency)
    source_PH = h_NH.index_select(0, source_P)
    negative_P = torch.randint(len(h_NH), target_P.shape)
    positive = model(source_PH, h_NH.index_select(0, target_P)).sigmoid()
    negative = model(source_PH, h_NH.index_select(0, negative_P)).sigmoid()
    loss = -(positive + TINY).log().mean() - (1 - negative + TINY).log().mean()
    loss.backward()
    optimizer.step()
    return float(loss.item())


@torch.no_grad()
def _evaluate(
    model: Recipe, graph: PreparedGraph, x_NF: Tensor, adjacency: Tensor
) -> dict[str, float]:
    h_NH = model.embed(x_NF, adjacency)
    return {
        f"{part}_mrr": rank_mrr(model, h_NH, getattr(graph, part)) for part in ("valid", "test")
    }


def rank_mrr(model: nn.Module, h_NH: Tensor, held_out: HeldOut) -> float:
    """MRR of held-out citations, from the embeddings of all papers and a scorer of pairs."""
    ranks = []
    for chunk in random_chunks(held_out, np.arange(len(held_out.source_P))):
        source_P1H = h_NH[torch.from_numpy(chunk.source_P).long()][:, None]
        score_PK = model(source_P1H, h_NH[torch.from_numpy(chunk.candidate_PK).long()])
        ranks.append(metrics.rank_positives(score_PK[:, 0], score_PK[:, 1:]))
    return metrics.mrr_and_hits(torch.cat(ranks))["mrr"]


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--epochs", type=int, default=50, help="passes over the training citations")
    parser.add_argument("--every", type=int, default=5, help="epochs between evaluations")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for progress in train(
        PreparedGraph.open(options.graph), epochs=options.epochs, every=options.every
    ):
        print(json.dumps(progress), flush=True)


if __name__ == "__main__":
    main()
