"""Measure what the collectives of a training step cost over links of 1 and 10 Gbit/s.

    sudo python benchmarks/links.py [--workers 2 4 8 16] [--gbit 1 10] [--weights 67575]
        [--step-seconds S]

Gives each worker a network namespace, joins them by a bridge, shapes both directions of every link
(tc, tbf), and has gloo add up the gradients of so many weights, and the three numbers that the
ranks agree on, as each step does. Prints one JSON object: the median seconds of a step's
collectives for each number of workers and speed of a link. With `--step-seconds`, the time that a
rank computes between them (`step.py` measures it), also the efficiency that follows for workers
that each have their own core: S / (S + collectives). Nothing of them is hidden behind the
computation there, so a training is no slower. The namespaces are taken away at the end.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

ROUNDS = 60
NETWORK = "10.77.0"
PORT = 29533
BURST = "256kb"
"""Bytes that a link may send at once before its rate holds."""


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.rank is not None:
        print(json.dumps(collectives(options.rank, options.workers[0], options.weights)))
        return
    if os.geteuid():
        raise SystemExit(
            "error: network namespaces need root\nhint: sudo python benchmarks/links.py"
        )
    results = []
    for gbit in options.gbit:
        for workers in options.workers:
            with links(workers, gbit) as names:
                seconds = measure(names, options.weights)
            result = {"gbit": gbit, "workers": workers, "collectives_s": seconds}
            if options.step_seconds:
                result["efficiency"] = options.step_seconds / (options.step_seconds + seconds)
            print(json.dumps(result), file=sys.stderr)
            results.append(result)
    print(json.dumps({"weights": options.weights, "results": results}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16], help="numbers")
    parser.add_argument("--gbit", type=float, nargs="+", default=[1, 10], help="speeds of a link")
    parser.add_argument("--weights", type=int, default=67_575, help="of the model, float32")
    parser.add_argument("--step-seconds", type=float, help="computation of a step")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def collectives(rank: int, workers: int, weights: int) -> float:
    """Return the median seconds of a step's collectives, as one rank sees them."""
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://{NETWORK}.1:{PORT}",
        rank=rank,
        world_size=workers,
        timeout=timedelta(seconds=60),
    )
    gradient, agreed = torch.ones(weights), torch.ones(3, dtype=torch.float64)
    seconds = []
    for _ in range(ROUNDS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(gradient)
        dist.all_reduce(agreed)
        seconds.append(time.perf_counter() - began)
        gradient.fill_(1)
    dist.destroy_process_group()
    return statistics.median(seconds)


def measure(names: list[str], weights: int) -> float:
    """Run a rank in each namespace; return the seconds of the slowest."""
    variables = {
        "GLOO_SOCKET_IFNAME": "uplink",
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # no host name belongs to these addresses
    }
    ranks = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, __file__),
                *("--rank", str(rank), "--workers", str(len(names)), "--weights", str(weights)),
            ],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
        )
        for rank, name in enumerate(names)
    ]
    answers = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        raise SystemExit("error: a rank has failed")
    return max(float(answer) for answer in answers)


@contextlib.contextmanager
def links(workers: int, gbit: float) -> Iterator[list[str]]:
    """Make a namespace for each worker, and one with the bridge that joins them."""
    hub = f"citeflow-{os.getpid()}-hub"
    names = [f"citeflow-{os.getpid()}-{rank}" for rank in range(workers)]
    try:
        for name in (hub, *names):
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
        _ip(f"-n {hub} link add bridge type bridge")
        _ip(f"-n {hub} link set bridge up")
        for rank, name in enumerate(names):
            _ip(f"-n {name} link add uplink type veth peer name port{rank} netns {hub}")
            _ip(f"-n {hub} link set port{rank} master bridge up")
            _ip(f"-n {name} addr add {NETWORK}.{rank + 1}/24 dev uplink")
            _ip(f"-n {name} link set uplink up")
            rate = f"root tbf rate {gbit}gbit burst {BURST} latency 50ms"
            _run(f"tc -n {name} qdisc add dev uplink {rate}")
            _run(f"tc -n {hub} qdisc add dev port{rank} {rate}")
        yield names
    finally:
        for name in (hub, *names):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def _ip(arguments: str) -> None:
    _run(f"ip {arguments}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    main()
