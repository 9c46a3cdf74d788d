"""Measure inference: all papers embedded, then validation citations ranked by some protocols.

    python benchmarks/inference.py GRAPH MODEL [--protocols all hard]

GRAPH is a folder that `preprocess` made, MODEL the one that `train` made of it. A protocol ranks as
many citations as `evaluate` does of the test, and embeds all papers again.

Prints one JSON object a line: seconds, seconds of CPU, the MRR, and the most memory of the process
itself, without the files that it maps, which the kernel takes back.
"""

import argparse
import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from citeflow.evaluation import trained_model
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.protocols import validation_mrr
from citeflow.graph.prepared import PreparedGraph

SAMPLE_EVERY_S = 0.2


def main() -> None:
    """Measure, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("model", type=Path, help="folder of a TrainedModel")
    parser.add_argument("--protocols", nargs="*", default=["all", "hard"])
    options = parser.parse_args()
    graph = PreparedGraph.open(options.graph)
    trained = trained_model.load(options.model)

    def embed() -> dict[str, float]:
        embed_all(trained.model, graph)
        return {"papers": graph.num_papers, "neighbors": len(graph.neighbors.col_E)}

    def rank(protocol: str) -> dict[str, float]:
        return {"mrr": validation_mrr(trained, graph, protocol)}

    _measure("embed", embed)
    for protocol in options.protocols:
        _measure(protocol, functools.partial(rank, protocol))


def _measure(name: str, function: Callable[[], dict[str, float]]) -> None:
    """Print what a function took, and what it returns."""
    is_done = threading.Event()
    peak = [0]

    def watch() -> None:
        while not is_done.wait(SAMPLE_EVERY_S):
            peak[0] = max(peak[0], _own_kib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu_began = time.monotonic(), time.process_time()
    try:
        result = function()
    finally:
        is_done.set()
        watcher.join()
    took = {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu_began, 1),
        "own_mib": peak[0] >> 10,
    }
    print(json.dumps({"step": name, **took, **result}), flush=True)


def _own_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))


if __name__ == "__main__":
    main()
