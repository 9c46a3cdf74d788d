"""PyG's own recipe for link prediction on sampled neighbors, which citeflow is compared with.

    python benchmarks/pyg_recipe.py PREPARED_GRAPH [--seconds 60] [--loaders 0] [--batch 1024]

As in PyG's examples: `LinkNeighborLoader` over the undirected graph, 15 and then 10 neighbors, 1024
citations a step with one random negative each, two SAGEConv layers of 128, a dot product, binary
cross-entropy, Adam. Prints one JSON object: training citations a second once it runs, the cores in
use, and the MRR on the citations that citeflow's own validation takes, with all neighbors.

PyG samples neighbors with pyg-lib or torch-sparse, of which neither is a requirement of citeflow:

    pip install setuptools wheel && pip install --no-build-isolation torch-scatter torch-sparse

Legend: N papers, E citations, F features, P pairs of a batch.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import torch
from ogb_recipe import rank_mrr
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.data import Data
from torch_geometric.loader import LinkNeighborLoader
from torch_geometric.nn import SAGEConv
from torch_geometric.sampler import NegativeSampling
from torch_geometric.utils import trim_to_layer

from citeflow.evaluation.scoring import sample_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.tensors import to_sparse_tensor
from citeflow.tasks.citation_training import MAX_VALIDATION_SOURCES
from citeflow.utils import system
from citeflow.utils.usage import machine_cpu_s

WIDTH, NEIGHBORS, LEARNING_RATE = 128, [15, 10], 1e-3
WARM_UP_STEPS = 3


class Recipe(nn.Module):
    """Encoder of two layers; a dot product scores pairs of its embeddings."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            SAGEConv(width, WIDTH) for width in (num_features, *[WIDTH] * (len(NEIGHBORS) - 1))
        )

    def embed(self, x_NF: Tensor, adjacency: Tensor) -> Tensor:
        """Embeddings, from an edge_index or a sparse adjacency."""
        x = x_NF
        for layer, conv in enumerate(self.convs):
            x = conv(x, adjacency)
            x = x.relu() if layer + 1 < len(self.convs) else x
        return x

    def embed_sampled(self, x_NF: Tensor, edge_2E: Tensor, last_seed: int) -> Tensor:
        """Embeddings of the seeds of a sample, each layer of the papers that those above need.

        The sampler lists papers and edges by their distance from the seeds. pyg-lib says how many
        there are of each; torch-sparse does not, so that they are counted here.
        """
        source_E, target_E = edge_2E
        papers = [last_seed + 1]
        edges: list[int] = []
        for _ in self.convs:
            edges.append(int((target_E < sum(papers)).sum()) - sum(edges))
            papers.append(max(0, int(source_E[: sum(edges)].max()) + 1 - sum(papers)))
        x = x_NF
        for layer, conv in enumerate(self.convs):
            x, edge_2E, _ = trim_to_layer(layer, papers, edges, x, edge_2E)
            x = conv(x, edge_2E)
            x = x.relu() if layer + 1 < len(self.convs) else x
        return x

    def forward(self, source_H: Tensor, target_H: Tensor) -> Tensor:
        """Logits of pairs of embeddings."""
        return (source_H * target_H).sum(-1)


def train(graph: PreparedGraph, options: argparse.Namespace) -> dict[str, float]:
    """Train for a while; the clock starts when the loader and the model run."""
    torch.manual_seed(0)
    loader, x_NF = _loader(graph, options)
    model = Recipe(x_NF.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    process, steps, positives, began = psutil.Process(), 0, 0, 0.0
    while not began or time.monotonic() - began < options.seconds:
        for batch in loader:
            if steps == WARM_UP_STEPS:
                began, positives = time.monotonic(), 0
                cpu_s, machine_s = _cpu_s(process), machine_cpu_s()
            optimizer.zero_grad()
            source_P, target_P = batch.edge_label_index
            h_NH = model.embed_sampled(batch.x, batch.edge_index, int(batch.edge_label_index.max()))
            score_P = model(h_NH[source_P], h_NH[target_P])
            loss = binary_cross_entropy_with_logits(score_P, batch.edge_label.float())
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            positives += len(source_P) // 2
            if began and time.monotonic() - began > options.seconds:
                break
    seconds = time.monotonic() - began
    cores = (_cpu_s(process) - cpu_s) / seconds
    others = (machine_cpu_s() - machine_s) / seconds - cores
    return {
        "positives_per_s": positives / seconds,
        "steps": steps,
        "cores": cores,
        "others_share": max(0.0, others / (psutil.cpu_count() or 1)),
        "valid_mrr": _valid_mrr(model, graph, x_NF),
    }


def _loader(graph: PreparedGraph, options: argparse.Namespace) -> tuple[LinkNeighborLoader, Tensor]:
    assert graph.x_NF is not None
    x_NF = torch.from_numpy(np.array(graph.x_NF))
    # Undirected, so its rows are its columns, which is the order that spares the sampler a sort.
    target_E, source_E = torch.from_numpy(graph.neighbors.edges()).long()
    data = Data(x=x_NF, edge_index=torch.stack([source_E, target_E]))
    loader = LinkNeighborLoader(
        data,
        num_neighbors=NEIGHBORS,
        edge_label_index=torch.from_numpy(graph.references.edges()).long(),
        neg_sampling=NegativeSampling("binary", amount=1),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        is_sorted=True,
        num_workers=options.loaders,
        persistent_workers=options.loaders > 0,
    )
    return loader, x_NF


def _cpu_s(process: psutil.Process) -> float:
    """CPU time of a process and those below it, which are its loader's."""
    times = [each.cpu_times() for each in (process, *process.children())]
    return float(sum(each.user + each.system for each in times))


@torch.no_grad()
def _valid_mrr(model: Recipe, graph: PreparedGraph, x_NF: Tensor) -> float:
    h_NH = model.embed(x_NF, to_sparse_tensor(graph.neighbors, graph.num_papers))
    return rank_mrr(model, h_NH, sample_held_out(graph.valid, most=MAX_VALIDATION_SOURCES))


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--seconds", type=float, default=60, help="length of the training")
    parser.add_argument("--loaders", type=int, default=0, help="num_workers of the loader")
    parser.add_argument("--batch", type=int, default=1024, help="citations a step")
    options = parser.parse_args()
    torch.set_num_threads(system.num_cores())
    # Each loader would say that torch-sparse will be removed some day.
    warnings.filterwarnings("ignore", message=".*without a 'pyg-lib'")
    print(json.dumps(train(PreparedGraph.open(options.graph), options)))


if __name__ == "__main__":
    main()
