"""Measure what sampling resources costs a training.

    python benchmarks/resources.py PREPARED_GRAPH [--rounds 8] [--steps 12] [--set
        SECTION.KEY=VALUE]

Prints one JSON object: the time of a sample with all that is done with it, and the share of a core
that this is; the time of a sample of proportional set size, for comparison; and training citations
a second without the sampler, with it, and with one that samples OFTEN times as often, by turns in
one process, on one thread. The loss by the last, divided by OFTEN, is the least noisy measure of
what the sampler costs.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from step import Steps

from citeflow import config as settings
from citeflow.graph.prepared import PreparedGraph
from citeflow.reporting.tensorboard import ResourceLog
from citeflow.training.resources import INTERVAL_S, Sampler
from citeflow.utils.usage import Usage, UsageReader, rates

OFTEN = 50


def microseconds(do: Callable[[], Any], count: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        do()
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)


def sample_cost(source: UsageReader, tell: Callable[[Usage, Usage], None]) -> dict[str, float]:
    """Cost of a sample in this process, as large as it is now."""
    before = source.read()

    def sample() -> None:
        tell(before, source.read())

    whole = microseconds(sample, 500)
    return {
        "resident_gib": before.rss_bytes / 2**30,
        "read_us": microseconds(source.read, 500),
        "sample_us": whole,
        "interval_s": INTERVAL_S,
        "share_of_a_core": whole / 1e6 / INTERVAL_S,
        "proportional_set_size_us": microseconds(Path("/proc/self/smaps_rollup").read_text, 10),
    }


class Rounds:
    """The same steps again and again; each round goes on where the one before ended."""

    def __init__(self, steps: Steps, count: int) -> None:
        self._steps, self._count, self._next = steps, count, 0

    def citations_per_s(self) -> tuple[float, float]:
        """Training citations by second of the clock, and by second of the processor."""
        began, cpu_s, positives = time.perf_counter(), time.process_time(), 0
        for _ in range(self._count):
            batch = self._steps.batch(self._next)
            self._steps.compute(batch)
            positives += batch.num_samples
            self._next += 1
        return positives / (time.perf_counter() - began), positives / (time.process_time() - cpu_s)


def throughput(rounds: Rounds, sampler: Callable[[float], Sampler], count: int) -> dict[str, Any]:
    """Measure rounds without the sampler, with it and with it sampling often, by turns."""
    rounds.citations_per_s()
    intervals = {"without": 0.0, "with": INTERVAL_S, "often": INTERVAL_S / OFTEN}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in intervals}
    for turn in range(count):
        names = list(intervals)
        for name in names[turn % 3 :] + names[: turn % 3]:
            with sampler(intervals[name]) if intervals[name] else contextlib.nullcontext():
                found[name].append(rounds.citations_per_s())
    medians = {
        name: dict(
            zip(
                ("per_s", "per_cpu_s"), map(statistics.median, zip(*each, strict=True)), strict=True
            )
        )
        for name, each in found.items()
    }
    loss = {
        name: 1 - medians[name]["per_cpu_s"] / medians["without"]["per_cpu_s"]
        for name in ("with", "often")
    }
    by_round = {name: sorted(per_cpu_s for _, per_cpu_s in each) for name, each in found.items()}
    of_often = {"times_as_often": OFTEN, "loss_by_often_divided": loss["often"] / OFTEN}
    return {"rounds": count, **medians, "loss": loss, **of_often, "per_cpu_s_by_round": by_round}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument(
        "--rounds", type=int, default=8, help="rounds with and as many without the sampler"
    )
    parser.add_argument("--steps", type=int, default=12, help="steps of a round")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = Steps(PreparedGraph.open(options.graph), settings.load(overrides=options.overrides))
    with tempfile.TemporaryDirectory() as folder:
        log = ResourceLog(Path(folder), 0, purge_step=None)

        def tell(before: Usage, after: Usage) -> None:
            held = {
                "memory_bytes": after.rss_bytes,
                "container_memory_bytes": after.container_bytes,
            }
            log.add(rates(before, after), held, step=0, wall_time=after.wall_time)

        source = UsageReader()
        result = throughput(
            Rounds(steps, options.steps),
            lambda every_s: Sampler(source.read, interval_s=every_s, on_sample=tell),
            options.rounds,
        )
        cost = sample_cost(source, tell)
        log.close()
    print(json.dumps({"sample": cost, "throughput": result}, indent=2))


if __name__ == "__main__":
    main()
