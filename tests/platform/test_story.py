"""What a new user does, in Chromium: web/tests/story.test.ts on a server whose trainings are real.

Its runs take place on this machine, and as pods of a cluster in memory. It needs Node.js, the
packages of web/ (`npm ci`) and Chromium; $CITEFLOW_STORY_PICTURES is a folder for its pictures.
"""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from fakes import user_cluster

from citeflow.platform.backends import detached

CITEFLOW = [sys.executable, "-P", "-m", "citeflow"]
STORY_S = 1_800
READY_S = 300
NUM_PAPERS = 2_000
NUM_TOPICS = 20
SUBJECTS = ("graphs", "strings", "branes", "lattices", "proofs", "cells", "galaxies", "markets")


class Platform:
    """The server as a process, which can be killed and started again at the same address."""

    def __init__(self, data, options, environment):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
        self._command = [*CITEFLOW, "platform", "--data", str(data), "--port", port, *options]
        self._environment = {**os.environ, **environment}
        self.facts = self.start()

    def start(self):
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        facts = json.loads(self._process.stdout.readline())
        # Its log of requests goes on to stdout, and must not fill the pipe.
        self._reader = threading.Thread(target=self._process.stdout.read, daemon=True)
        self._reader.start()
        return facts

    def end(self, number):
        self._process.send_signal(number)
        self._process.wait(READY_S)
        self._reader.join(READY_S)
        self._process.stdout.close()

    @contextlib.contextmanager
    def restarts(self):
        """Serve the address at which a POST kills the server and starts it again."""
        platform = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                platform.end(signal.SIGKILL)
                platform.start()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()


def write_papers(path):
    """Write papers of topics, of which each cites earlier ones, mostly of its topic."""
    random = np.random.default_rng(7)
    topic_N = random.integers(0, NUM_TOPICS, NUM_PAPERS)
    papers, citations = ["id,year,title"], ["citing,cited"]
    for paper, topic in enumerate(topic_N.tolist()):
        subject = SUBJECTS[topic % len(SUBJECTS)]
        papers.append(f"p{paper},{1990 + paper // 100},On {subject} of kind {topic} part {paper}")
        alike = np.flatnonzero(topic_N[:paper] == topic)
        few = min(len(alike), 8)
        cited = {*random.choice(alike, few, replace=False).tolist()} if few else set()
        cited |= {*random.integers(0, max(paper, 1), 2).tolist()} - {paper}
        citations += [f"p{paper},p{each}" for each in sorted(cited)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("papers.csv", "\n".join(papers))
        archive.writestr("citations.csv", "\n".join(citations))
    return f"{len(papers) - 1:,} papers, {len(citations) - 1:,} citations"


@contextlib.contextmanager
def here(folder):
    """Let runs take place on this machine; one that a story which failed has left is ended."""
    try:
        yield {}, []
    finally:
        end_runs(folder)


def end_runs(folder):
    for run in folder.glob("data/users/*/processes/*"):
        attempt = detached.read_attempt(run)
        if attempt is not None and detached.is_alive(run):
            os.killpg(attempt.pid, signal.SIGKILL)


PLACES = {"local": here, "cluster": user_cluster.serving}


@pytest.mark.parametrize("place", PLACES)
def test_new_user_gets_from_the_first_link_to_citations_with_reasons(place, checkout, tmp_path):
    vitest = checkout / "web" / "node_modules" / ".bin" / "vitest"
    for what, is_there in (
        ("Node.js", shutil.which("node")),
        ("the packages of web/ (npm ci)", vitest.exists()),
        ("Chromium", shutil.which("chromium")),
        ("a mount of one's own (unshare)", place == "local" or user_cluster.can_mount()),
    ):
        if not is_there:
            pytest.skip(f"not here: {what}")
    summary = write_papers(tmp_path / "lab.zip")
    with PLACES[place](tmp_path) as (environment, options):
        platform = Platform(tmp_path / "data", options, environment)
        try:
            with platform.restarts() as restart:
                world = {
                    "url": platform.facts["url"],
                    "setup": platform.facts["setup"].removeprefix(platform.facts["url"]),
                    "size": "L",
                    "file": str(tmp_path / "lab.zip"),
                    "summary": summary,
                    "minutes": "0.5",
                    "word": "branes",
                    "restart": restart,
                    "pictures": pictures_of(place),
                }
                told = tmp_path / "story.json"
                told.write_text(json.dumps(world))
                subprocess.run(
                    [vitest, "run", "tests/story.test.ts", f"--testTimeout={1_000 * STORY_S}"],
                    cwd=checkout / "web",
                    env={**os.environ, "CITEFLOW_STORY": str(told)},
                    timeout=STORY_S,
                    check=True,
                )
        finally:
            platform.end(signal.SIGTERM)


def pictures_of(place):
    """Return the folder for pictures; empty where nobody asks for them."""
    folder = os.environ.get("CITEFLOW_STORY_PICTURES")
    if not folder:
        return ""
    os.makedirs(f"{folder}/{place}", exist_ok=True)
    return f"{folder}/{place}"
