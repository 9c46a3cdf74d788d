"""Measure where the time of a training step goes, on one thread.

    python benchmarks/step.py PREPARED_GRAPH [--steps 12] [--set SECTION.KEY=VALUE]

Prints one JSON object: seconds of CPU per step and share of each kind of work, page faults per
step, and how near the dense products are to the machine's rate; and the same with glibc's usual
malloc.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from citeflow import config as settings
from citeflow.config import Config
from citeflow.evaluation.scoring import build_structural_features
from citeflow.graph.prepared import PreparedGraph
from citeflow.sampling import PartitionSampler
from citeflow.tasks.citation_objective import Batch, Objective, make_batch
from citeflow.tasks.citation_training import build_model
from citeflow.utils.system import worker_environment

KINDS = {
    "dense products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "gather and scatter": (
        "aten::index_select",
        "aten::index_add_",
        "aten::scatter_add_",
        "aten::gather",
    ),
    "dropout": ("aten::bernoulli_",),
}
"""Operators by kind; sparse products are mm and addmm with a sparse side, the rest elementwise."""


class Steps:
    """Steps of one rank, without the other ranks."""

    def __init__(self, graph: PreparedGraph, config: Config) -> None:
        self.graph, self.config = graph, config
        self.structural = build_structural_features(graph, config.model)
        self.model = build_model(graph, self.structural, config)
        self.objective = Objective(self.model, config.train.loss)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.train.lr)
        self.plan = PartitionSampler(
            num_papers=graph.num_papers,
            nodes_per_batch=config.train.nodes_per_batch,
            world_size=1,
            seed=0,
        )

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        part = self.plan.partition(step, 0)
        return make_batch(
            part,
            graph=self.graph,
            structural=self.structural,
            config=self.config,
            seed=(0, step, 0),
        )

    def compute(self, batch: Batch) -> None:
        """Forward, backward, update."""
        self.optimizer.zero_grad(set_to_none=True)
        is_less = self.config.train.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=is_less):
            loss = self.objective(batch)
        loss.backward()
        self.optimizer.step()


def figures(steps: Steps, count: int) -> dict[str, Any]:
    """Costs per step, after some steps to warm up."""
    for step in range(4):
        steps.compute(steps.batch(step))
    began, positives, making = resource.getrusage(resource.RUSAGE_SELF), 0, 0.0
    for step in range(4, 4 + count):
        made = time.process_time()
        batch = steps.batch(step)
        making += time.process_time() - made
        steps.compute(batch)
        positives += batch.num_samples
    ended = resource.getrusage(resource.RUSAGE_SELF)
    seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {
        "positives_per_step": positives / count,
        "cpu_s_per_step": seconds / count,
        "positives_per_cpu_s": positives / seconds,
        "kernel_share": (ended.ru_stime - began.ru_stime) / seconds,
        "faults_per_step": (ended.ru_minflt - began.ru_minflt) / count,
        "making_batches": making / seconds,
        **_shares(steps, count),
    }


def _shares(steps: Steps, count: int) -> dict[str, Any]:
    """Shares of the computation by kind of operator."""
    batches = [steps.batch(step) for step in range(min(count, 4))]
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        for batch in batches:
            steps.compute(batch)
    kinds = dict.fromkeys([*KINDS, "sparse products", "elementwise and rest"], 0.0)
    for event in profiled.key_averages(group_by_input_shape=True):
        kind = next(
            (kind for kind, names in KINDS.items() if event.key in names), "elementwise and rest"
        )
        shapes = [shape for shape in event.input_shapes if len(shape) == 2]
        is_sparse = kind == "dense products" and any(a == b and a > 4096 for a, b in shapes)
        kinds["sparse products" if is_sparse else kind] += event.self_cpu_time_total
    total = sum(kinds.values())
    return {"shares": {kind: time_us / total for kind, time_us in kinds.items()}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--steps", type=int, default=12, help="steps to measure")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        torch.set_num_threads(1)
        config = settings.load(overrides=options.overrides)
        print(json.dumps(figures(Steps(PreparedGraph.open(options.graph), config), options.steps)))
        return
    usual = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    for name, variables in (("memory kept", worker_environment(usual, 1)), ("usual malloc", usual)):
        command = [sys.executable, *sys.argv, "--here"]
        done = subprocess.run(
            command, env={**variables, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.PIPE
        )
        print(json.dumps({"allocator": name, **json.loads(done.stdout)}))


if __name__ == "__main__":
    main()
