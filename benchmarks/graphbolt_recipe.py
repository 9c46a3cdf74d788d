"""DGL's recipe for link prediction on GraphBolt, the same model and samples as `pyg_recipe.py`.

    GRAPHBOLT_PYTHON benchmarks/graphbolt_recipe.py PREPARED_GRAPH [--seconds 60] [--loaders 0]
        [--batch 1024]

DGL's wheels need an older torch than citeflow, so this reads a PreparedGraph's files and imports
nothing of citeflow; its environment is made by

    pip install dgl==2.1.0 torch==2.2.1 torchdata==0.7.1 'numpy<2' pydantic pyyaml pandas

Prints one JSON object: training citations a second once it runs, and the cores in use.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import dgl.graphbolt as gb  # type: ignore[import-not-found]
import numpy as np
import psutil
import torch
from dgl.nn import SAGEConv  # type: ignore[import-not-found]
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

WIDTH, NEIGHBORS, LEARNING_RATE = 128, [15, 10], 1e-3
WARM_UP_STEPS = 3


class Recipe(nn.Module):
    """Encoder of two layers."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            SAGEConv(width, WIDTH, "mean")
            for width in (num_features, *[WIDTH] * (len(NEIGHBORS) - 1))
        )

    def forward(self, blocks: list[Any], x: torch.Tensor) -> torch.Tensor:
        """Embeddings of a batch's papers."""
        for layer, (conv, block) in enumerate(zip(self.convs, blocks, strict=True)):
            x = conv(block, x)
            x = x.relu() if layer + 1 < len(self.convs) else x
        return x


def train(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Train for a while; the clock starts when the loader and the model run."""
    torch.manual_seed(0)
    loader, num_features = _loader(folder, options)
    model = Recipe(num_features)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    process, steps, positives, began = psutil.Process(), 0, 0, 0.0
    while not began or time.monotonic() - began < options.seconds:
        for batch in loader:
            if steps == WARM_UP_STEPS:
                began, positives = time.monotonic(), 0
                cpu_s, machine_s = _cpu_s(process), _busy_s()
            optimizer.zero_grad()
            (source_P, target_P), label_P = batch.node_pairs_with_labels
            h_NH = model(batch.blocks, batch.node_features["x"])
            score_P = (h_NH[source_P] * h_NH[target_P]).sum(-1)
            loss = binary_cross_entropy_with_logits(score_P, label_P.float())
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            positives += len(source_P) // 2
            if began and time.monotonic() - began > options.seconds:
                break
    seconds = time.monotonic() - began
    cores = (_cpu_s(process) - cpu_s) / seconds
    others = (_busy_s() - machine_s) / seconds - cores
    return {
        "positives_per_s": positives / seconds,
        "steps": steps,
        "cores": cores,
        "others_share": max(0.0, others / (psutil.cpu_count() or 1)),
    }


def _loader(folder: Path, options: argparse.Namespace) -> tuple[gb.DataLoader, int]:
    x_NF = torch.from_numpy(np.load(folder / "x.npy"))
    graph = gb.fused_csc_sampling_graph(
        torch.from_numpy(np.load(folder / "neighbors_ptr.npy")),
        torch.from_numpy(np.load(folder / "neighbors_index.npy")).long(),
    )
    rowptr_N1 = np.load(folder / "references_ptr.npy")
    source_E = np.repeat(np.arange(len(rowptr_N1) - 1), np.diff(rowptr_N1))
    pairs_E2 = np.stack([source_E, np.load(folder / "references_index.npy")], axis=1)
    items = gb.ItemSet(torch.from_numpy(pairs_E2).long(), names="node_pairs")
    pipe = gb.ItemSampler(items, batch_size=options.batch, shuffle=True, drop_last=True)
    pipe = pipe.sample_uniform_negative(graph, 1)
    pipe = pipe.sample_neighbor(graph, NEIGHBORS)
    features = gb.BasicFeatureStore({("node", None, "x"): gb.TorchBasedFeature(x_NF)})
    pipe = pipe.fetch_feature(features, node_feature_keys=["x"])
    return gb.DataLoader(pipe, num_workers=options.loaders), x_NF.shape[1]


def _cpu_s(process: psutil.Process) -> float:
    """CPU time of a process and those below it, which are its loader's."""
    times = [each.cpu_times() for each in (process, *process.children())]
    return float(sum(each.user + each.system for each in times))


def _busy_s() -> float:
    """CPU time of all that ran on the machine."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--seconds", type=float, default=60, help="length of the training")
    parser.add_argument("--loaders", type=int, default=0, help="num_workers of the loader")
    parser.add_argument("--batch", type=int, default=1024, help="citations a step")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(train(options.graph, options)))


if __name__ == "__main__":
    main()
