"""Measure a server: how long answers take, how many it gives, what it holds, how well it finds.

    python benchmarks/serving.py [--index DIR] [--papers 292796] [--minutes 1] [--data-root DIR]
        [--seconds 15] [--recall 300]

Without --index it makes one: the synthetic twin of so many papers, and a model that is trained for
so long. It starts `citeflow serve` as a process of its own and asks it over HTTP from threads of
this one, which take a part of the same cores. Prints one JSON object; times are in milliseconds.
`floor_ms` is the p50 of a request that computes nothing (/v2/health/live).
"""

import argparse
import concurrent.futures
import http.client
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.queries import QueryPaper
from citeflow.serving.index import ServingIndex

CITEFLOW = [
    sys.executable,
    "-c",
    "import sys; from citeflow.cli.main import main; sys.exit(main())",
]

HOLDOUT = 86_596.5 / 2_927_963
"""Share of the papers that give test citations, as in ogbl-citation2."""

READY_S = 600
OVERLOAD = 64
"""Clients that ask at once: more than threads and queue take."""

Call = Callable[[http.client.HTTPConnection], int]
"""Asks once; returns the status."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, help="a ServingIndex; by default one is made")
    parser.add_argument("--papers", type=int, default=292_796)
    parser.add_argument("--minutes", type=float, default=1, help="time to train")
    parser.add_argument("--data-root", type=Path, default=Path("citeflow-data"))
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--recall", type=int, default=300, help="papers that recall is taken from")
    options = parser.parse_args()
    folder = options.index or make_index(options.papers, options.minutes, options.data_root)
    index = ServingIndex.open(folder)
    result: dict[str, Any] = {"papers": index.graph.num_papers}
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        with (Path(scratch) / "log").open("w") as log:
            command = [*CITEFLOW, "serve", str(folder), "--port", "0"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            port = wait_until_ready(Path(scratch) / "log", process)
            result["ready_s"] = round(time.monotonic() - began, 1)
            result |= measure(index, port, options.seconds)
            memory = psutil.Process(process.pid).memory_full_info()
            result |= {"rss_mb": memory.rss >> 20, "uss_mb": memory.uss >> 20}
        finally:
            process.terminate()
            process.wait(READY_S)
    result["recall"] = recall(index, options.recall)
    print(json.dumps(result))


def make_index(num_papers: int, minutes: float, data_root: Path) -> Path:
    """Make the synthetic twin, a model of it, and its index."""
    settings = [f"synthetic.num_papers={num_papers}", f"data.holdout={HOLDOUT}"]
    common = ["--data-root", str(data_root)]
    common += [part for each in settings for part in ("--set", each)]
    raw = run("download", "synthetic", *common)
    graph = run("preprocess", raw, *common)
    name = ["--run-name", f"serving-{num_papers}", "--workers", "2"]
    model = run("train", graph, *name, *common, "--set", f"train.minutes={minutes}")
    return Path(run("index", model, "--data-root", str(data_root)))


def run(*arguments: str) -> str:
    """Run a command of citeflow; return the folder that it has made."""
    done = subprocess.run([*CITEFLOW, *arguments], check=True, stdout=subprocess.PIPE)
    return str(json.loads(done.stdout.splitlines()[-1])["path"])


def wait_until_ready(log: Path, process: subprocess.Popen[bytes]) -> int:
    """Return the port of a server that has just been started."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        lines = log.read_text()
        if " ready " in lines:
            return int(lines.partition("url=http://127.0.0.1:")[2].split()[0])
        time.sleep(0.05)
    raise SystemExit(f"error: the server is not ready: {log.read_text()}")


def measure(index: ServingIndex, port: int, seconds: float) -> dict[str, Any]:
    """Ask for random papers in several ways."""
    rows = np.random.default_rng(0).permutation(index.graph.num_papers)[:20_000].tolist()
    ids = [str(index.papers.ids[row]) for row in rows]
    references = [
        [str(index.papers.ids[each]) for each in index.graph.references.row(row).tolist()]
        for row in rows
    ]
    known = [stored(name) for name in ids]
    new = [post("/v1/citations", {"references": each}) for each in references if each]
    exact = [stored(name, exact=True) for name in ids]
    batches = [
        post("/v1/citations:batch", {"queries": [{"paper": name} for name in part]})
        for part in zip(*[iter(ids)] * 64, strict=False)
    ]
    load = Load(port, seconds)
    live = load.run([get("/v2/health/live")], 1)
    load.run(known, 2)  # what the first answers read from the disk stays in memory
    quiet = load.run(known, 1)
    at_once = load.run(known, 4)
    over = load.run(known, OVERLOAD)
    return {
        "floor_ms": live["p50_ms"],
        "known": quiet,
        "known_4_clients": at_once,
        "new": load.run(new, 1),
        "exact": load.run(exact, 1),
        "batch_of_64": load.run(batches, 1),
        "overload": over,
    }


class Load:
    """Clients that ask one after the other, each on a connection of its own."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds

    def run(self, calls: list[Call], clients: int) -> dict[str, Any]:
        """Ask for some seconds; describe the times of those that were answered."""
        queue: Iterator[Call] = itertools.cycle(calls)
        end = time.monotonic() + self._seconds
        taken: list[tuple[int, float]] = []

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            while time.monotonic() < end:
                began = time.perf_counter()
                status = next(queue)(connection)
                taken.append((status, 1e3 * (time.perf_counter() - began)))
                if status == 429:  # as a polite client does, if sooner
                    time.sleep(0.1)
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(ask) for _ in range(clients)]:
                done.result()
        answered = [each for status, each in taken if status in (200, 404, 422)]
        statuses = [status for status, _ in taken]
        return {
            "p50_ms": round(float(np.percentile(answered, 50)), 2),
            "p99_ms": round(float(np.percentile(answered, 99)), 2),
            "per_s": round(len(answered) / self._seconds, 1),
            "statuses": {str(each): statuses.count(each) for each in sorted(set(statuses))},
        }


def get(path: str) -> Call:
    """Make a call that reads."""

    def call(connection: http.client.HTTPConnection) -> int:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status

    return call


def post(path: str, body: object) -> Call:
    """Make a call that asks."""
    content = json.dumps(body)

    def call(connection: http.client.HTTPConnection) -> int:
        connection.request("POST", path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status

    return call


def stored(name: str, **options: object) -> Call:
    """Make a call that asks for a paper of the graph."""
    return post(f"/v1/papers/{name}/citations", options)


def recall(index: ServingIndex, num_papers: int) -> dict[str, float]:
    """Compare the ten best of those that walks reach with the ten best of all papers."""
    rows = np.random.default_rng(1).permutation(index.graph.num_papers).tolist()
    found, scanned, candidates = [], 0, []
    for row in rows[:num_papers]:
        query = QueryPaper(paper=str(index.papers.ids[row]))
        try:
            walk = index.engine.answer(query, Wanted(exact=False))
            exact = index.engine.answer(query, Wanted())
        except Exception:  # no older paper
            continue
        scanned += walk.method == "exact"
        candidates.append(walk.num_candidates)
        best = {each.id for each in exact.predictions}
        found.append(len(best & {each.id for each in walk.predictions}) / len(best))
    return {
        "recall@10": round(float(np.mean(found)), 5),
        "papers": len(found),
        "scanned": scanned,
        "median_candidates": float(np.median(candidates)),
    }


if __name__ == "__main__":
    main()
