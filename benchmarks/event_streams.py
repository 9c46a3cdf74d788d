"""Measure the platform while many watch: how long other calls take beside open event streams.

    python benchmarks/event_streams.py [--streams 500] [--seconds 30]

It starts `citeflow platform` as a process of its own with one account and one run, whose processes
it stops at once, so that they take no core. It writes the curve of the run itself, a figure each
second, and opens the streams, which all get it. Meanwhile it asks for the run, the list of runs and
the account, one after the other, over one connection. Prints one JSON object; times are in
milliseconds. `events` counts those that all streams got together.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import requests

from citeflow.platform.backends import detached
from citeflow.platform.backends.local import FOLDER
from citeflow.reporting.tensorboard import RunLog

CITEFLOW = [sys.executable, "-P", "-m", "citeflow"]
PASSWORD = "a password of a benchmark"
READY_S = 300
API = "/api/v1"


def main() -> None:
    """Start a server, measure it, and print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        server = subprocess.Popen(
            [*CITEFLOW, "platform", "--data", str(data), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            facts = json.loads(server.stdout.readline())
            # Its log of requests goes on to stdout, and must not fill the pipe.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            measured = asyncio.run(measure(facts, data, options.streams, options.seconds))
        finally:
            server.terminate()
            server.wait(READY_S)
    print(json.dumps(measured))


async def measure(
    facts: dict[str, str], data: Path, streams: int, seconds: float
) -> dict[str, float]:
    """Open the streams and ask beside them."""
    session = requests.Session()
    session.headers["Origin"] = facts["url"]
    run = await asyncio.to_thread(begin, session, facts, data)
    quiet = await asyncio.to_thread(ask, session, facts["url"], run, seconds / 4)
    counts = {"events": 0, "open": 0}
    cookie = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
    watching = [
        asyncio.create_task(watch(facts["url"], run["id"], cookie, counts)) for _ in range(streams)
    ]
    writing = asyncio.create_task(write(data / "users" / run["owner"] / "logs" / run["name"]))
    end = time.monotonic() + READY_S
    while counts["open"] < streams and time.monotonic() < end:
        await asyncio.sleep(0.1)
    before = counts["events"]
    times = await asyncio.to_thread(ask, session, facts["url"], run, seconds)
    got = counts["events"] - before
    for task in (*watching, writing):
        task.cancel()
    await asyncio.to_thread(session.post, f"{facts['url']}{API}/runs/{run['id']}/cancel")
    stop(data, run, is_final=True)
    return {
        "streams": counts["open"],
        "events": got,
        "calls": len(times),
        "quiet_p50_ms": percentile(quiet, 50),
        "quiet_p99_ms": percentile(quiet, 99),
        "p50_ms": percentile(times, 50),
        "p99_ms": percentile(times, 99),
        "load": psutil.getloadavg()[0],
    }


def begin(session: requests.Session, facts: dict[str, str], data: Path) -> dict[str, str]:
    """Make the account and its run, and stop the run's processes."""
    api = facts["url"] + API
    token = facts["setup"].partition("token=")[2]
    body = {"token": token, "name": "ann", "password": PASSWORD}
    session.post(f"{api}/setup", json=body, timeout=READY_S).raise_for_status()
    session.put(f"{api}/environment", json={"size": "L"}, timeout=READY_S).raise_for_status()
    response = session.post(f"{api}/runs", json={"dataset": "synthetic"}, timeout=READY_S)
    response.raise_for_status()
    run: dict[str, str] = response.json()
    stop(data, run, is_final=False)
    return run


def stop(data: Path, run: dict[str, str], *, is_final: bool) -> None:
    """Stop the processes of the run, or end them."""
    folder = data / "users" / run["owner"] / FOLDER / run["name"]
    end = time.monotonic() + READY_S
    while (attempt := detached.read_attempt(folder)) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    process = psutil.Process(attempt.pid)
    for each in (process, *process.children(recursive=True)):
        each.kill() if is_final else each.suspend()


def ask(session: requests.Session, url: str, run: dict[str, str], seconds: float) -> list[float]:
    """Ask one call after the other; return their times in milliseconds."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in (f"/runs/{run['id']}", "/runs", "/me"):
            began = time.perf_counter()
            session.get(f"{url}{API}{path}", timeout=READY_S).raise_for_status()
            times.append(1e3 * (time.perf_counter() - began))
    return times


async def watch(url: str, run_id: str, cookie: str, counts: dict[str, int]) -> None:
    """Read a stream until it is cancelled."""
    host = url.removeprefix("http://")
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    head = f"GET {API}/runs/{run_id}/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n"
    writer.write(head.encode())
    status = await reader.readline()
    assert b" 200 " in status, status
    counts["open"] += 1
    try:
        while line := await reader.readline():
            counts["events"] += line.startswith(b"event:")
    finally:
        writer.close()


async def write(logs: Path) -> None:
    """Write a figure each second, as a training does."""
    log = RunLog(logs, purge_step=None)
    step = 0
    while True:
        step += 1
        values = {"step": step, "loss": 1 / step, "lr": 0.01, "positives_per_s": 1e4}
        log.step({**values, "wall_time": time.time()})
        await asyncio.sleep(1)


def percentile(times: list[float], share: float) -> float:
    """Return a percentile, rounded."""
    return round(float(np.percentile(times, share)), 2)


if __name__ == "__main__":
    main()
