"""Measure what the machine itself can do, which is the floor of every other figure.

    python benchmarks/machine.py [--threads 2]

Prints one JSON object: the rate of float32 products (of the shape of a step), the bandwidth of a
copy in main memory, the rate of a sparse product, and how much longer an addition takes when its
memory is new from the kernel each time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from citeflow.graph.csr import Csr
from citeflow.models.tensors import to_sparse_tensor
from citeflow.utils.system import worker_environment

REPETITIONS = 7
ROWS, WIDTH, DEGREE = 20_000, 128, 16


def figures() -> dict[str, float]:
    """Rates of this process, with the threads that it has."""
    x, w = torch.randn(ROWS, WIDTH), torch.randn(WIDTH, WIDTH)
    col_E = np.random.default_rng(0).integers(0, ROWS, ROWS * DEGREE, dtype=np.int32)
    adjacency = to_sparse_tensor(Csr(np.arange(0, len(col_E) + 1, DEGREE), col_E), ROWS)
    large, copy = torch.ones(64 << 20), torch.empty(64 << 20)
    out = torch.empty(ROWS, WIDTH)
    return {
        "dense_gflops": 2e-9 * ROWS * WIDTH**2 / _median(lambda: torch.mm(x, w, out=out), 20),
        "sparse_rows_per_s": len(col_E) / _median(lambda: torch.mm(adjacency, x), 10),
        "copy_gb_per_s": 2e-9 * 4 * len(large) / _median(lambda: copy.copy_(large), 1),
        "add_ms": 1e3 * _median(lambda: large[: 16 << 20] + 1, 3),
    }


def _median(call: Callable[[], object], calls: int) -> float:
    """Seconds of one call, the median of several rounds."""
    call()
    rounds = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - began) / calls)
    return statistics.median(rounds)


def measured(threads: int) -> dict[str, float]:
    """Measure a process in the environment of a worker with some threads, and new pages."""
    kept = _child({**worker_environment(os.environ, 1), "OMP_NUM_THREADS": str(threads)})
    usual = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    new = _child({**usual, "OMP_NUM_THREADS": str(threads)})
    return {"threads": threads, **kept, "add_ms_new_pages": new["add_ms"]}


def _child(variables: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--here"], env=variables, check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    print(json.dumps(figures() if options.here else measured(options.threads)))


if __name__ == "__main__":
    main()
