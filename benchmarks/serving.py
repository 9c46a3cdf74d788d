"""Measure a server: how long answers take, how many it gives, what it holds, how well it finds.

    python benchmarks/serving.py [--index DIR] [--papers 292796] [--train-minutes 1]
        [--data-root DIR] [--seconds 15] [--recall 300] [--minutes 0]

Without --index it makes one: the synthetic twin of so many papers, and a model that is trained for
so long. It starts `citeflow serve` as a process of its own and asks it by wrk (`apt-get install
wrk`), a client that takes hardly any of the same cores; where that is not installed, by threads of
this process, which take much. Prints one JSON object; times are in milliseconds. `floor_ms` is the
p50 of a request that computes nothing (/v2/health/live); `cpu_ms` is the time of all threads of the
server for one answer, which another load of the machine hardly changes. `overload` has the p99 of
the accepted over that of one client just before, in `p99_over_quiet`.

With --minutes it asks from more clients than the server takes for so long instead, and prints the
memory of the server every 30 seconds.
"""

import argparse
import concurrent.futures
import http.client
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.queries import QueryPaper
from citeflow.serving.citation.index import ServingIndex

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

SAMPLE_S = 30
"""Time between two looks at the memory of the server."""

SCRIPT = Path(__file__).with_name("serving.lua")

Request = tuple[str, str]
"""Path, and the body that is posted to it; a request without one is a GET."""

Taken = list[tuple[int, float]]
"""Status and milliseconds of each request."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, help="a ServingIndex; by default one is made")
    parser.add_argument("--papers", type=int, default=292_796)
    parser.add_argument("--train-minutes", type=float, default=1)
    parser.add_argument("--data-root", type=Path, default=Path("citeflow-data"))
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--recall", type=int, default=300, help="papers that recall is taken from")
    parser.add_argument("--minutes", type=float, default=0, help="load, and memory every 30 s")
    options = parser.parse_args()
    folder = options.index or make_index(options.papers, options.train_minutes, options.data_root)
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
            load = Load(port, options.seconds, psutil.Process(process.pid), Path(scratch))
            if options.minutes:
                result["rss_mb"] = list(watch_memory(index, load, options.minutes))
            else:
                result |= measure(index, load)
                memory = load.server.memory_full_info()
                result |= {"rss_mb": memory.rss >> 20, "uss_mb": memory.uss >> 20}
        finally:
            process.terminate()
            process.wait(READY_S)
    if not options.minutes:
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


def measure(index: ServingIndex, load: "Load") -> dict[str, Any]:
    """Ask for random papers in several ways."""
    rows = random_rows(index)
    ids = [str(index.papers.ids[row]) for row in rows]
    references = [
        [str(index.papers.ids[each]) for each in index.graph.references.row(row).tolist()]
        for row in rows
    ]
    known = [stored(name) for name in ids]
    new = [("/v1/citations", json.dumps({"references": each})) for each in references if each]
    exact = [stored(name, exact=True) for name in ids]
    batches = [
        ("/v1/citations:batch", json.dumps({"queries": [{"paper": name} for name in part]}))
        for part in zip(*[iter(ids)] * 64, strict=False)
    ]
    live = load.run([("/v2/health/live", "")], 1)
    load.run(known, 2)  # what the first answers read from the disk stays in memory
    quiet = load.run(known, 1)
    over = load.run(known, OVERLOAD)
    return {
        "clients": "wrk" if shutil.which("wrk") else "threads",
        "floor_ms": live["p50_ms"],
        "known": quiet,
        "overload": over | {"p99_over_quiet": round(over["p99_ms"] / quiet["p99_ms"], 2)},
        "overload_polite": load.run(known, OVERLOAD, pause_ms=1_000),
        "known_4_clients": load.run(known, 4),
        "new": load.run(new, 1),
        "exact": load.run(exact, 1),
        "batch_of_64": load.run(batches, 1),
    }


def watch_memory(index: ServingIndex, load: "Load", minutes: float) -> Iterator[int]:
    """Ask for known papers from too many clients; print and yield the resident memory in MB."""
    known = [stored(str(index.papers.ids[row])) for row in random_rows(index)]
    began = time.monotonic()
    while time.monotonic() - began < 60 * minutes:
        found = load.run(known, OVERLOAD, seconds=SAMPLE_S)
        rss_mb = load.server.memory_info().rss >> 20
        line = {"seconds": round(time.monotonic() - began), "rss_mb": rss_mb, **found}
        print(json.dumps(line), flush=True)
        yield rss_mb


def random_rows(index: ServingIndex) -> list[int]:
    """Return rows of papers that are asked for."""
    rows: list[int] = np.random.default_rng(0).permutation(index.graph.num_papers).tolist()
    return rows[:20_000]


def stored(name: str, **options: object) -> Request:
    """Ask for a paper of the graph."""
    return f"/v1/papers/{name}/citations", json.dumps(options)


class Load:
    """Clients that ask one after the other, each on a connection of its own."""

    def __init__(self, port: int, seconds: float, server: psutil.Process, scratch: Path) -> None:
        self._port = port
        self._seconds = seconds
        self._scratch = scratch
        self.server = server

    def run(
        self,
        requests: list[Request],
        clients: int,
        *,
        seconds: float | None = None,
        pause_ms: int = 0,
    ) -> dict[str, Any]:
        """Ask for some seconds; describe the times of those that were answered.

        Args:
            requests: in turn.
            clients: that ask at once.
            seconds: how long; by default as for all measurements.
            pause_ms: time that a client waits when it was refused.
        """
        duration = max(1, round(seconds or self._seconds))
        ask = self._ask_by_wrk if shutil.which("wrk") else self._ask_by_threads
        before = self.server.cpu_times()
        taken = ask(requests, clients, duration, pause_ms)
        after = self.server.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        answered = [each for status, each in taken if status in (200, 404, 422)]
        statuses = [status for status, _ in taken]
        if not answered:
            raise SystemExit(f"error: no answer within {duration} s\nhint: more --seconds")
        return {
            "p50_ms": round(float(np.percentile(answered, 50)), 2),
            "p99_ms": round(float(np.percentile(answered, 99)), 2),
            "per_s": round(len(answered) / duration, 1),
            "cpu_ms": round(1e3 * cpu_s / len(answered), 2),
            "statuses": {str(each): statuses.count(each) for each in sorted(set(statuses))},
        }

    def _ask_by_wrk(
        self, requests: list[Request], clients: int, seconds: int, pause_ms: int
    ) -> Taken:
        lines = self._scratch / "requests"
        lines.write_text("".join(f"{path}\t{body}\n" for path, body in requests))
        each = [f"--threads={clients}", f"--connections={clients}", f"--duration={seconds}s"]
        command = ["wrk", *each, "--timeout=60s", f"--script={SCRIPT}"]
        command += [f"http://127.0.0.1:{self._port}", "--", str(lines), str(pause_ms)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        times = done.stdout.partition("\ntimes\n")[2]
        rows = [line.split() for line in times.splitlines()]
        return [(int(status), float(milliseconds)) for status, milliseconds in rows]

    def _ask_by_threads(
        self, requests: list[Request], clients: int, seconds: int, pause_ms: int
    ) -> Taken:
        queue = itertools.cycle(requests)
        end = time.monotonic() + seconds
        taken: Taken = []

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            while time.monotonic() < end:
                path, body = next(queue)
                began = time.perf_counter()
                connection.request(
                    "POST" if body else "GET", path, body, {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                response.read()
                taken.append((response.status, 1e3 * (time.perf_counter() - began)))
                if response.status == 429:
                    time.sleep(pause_ms / 1e3)
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(ask) for _ in range(clients)]:
                done.result()
        return taken


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
