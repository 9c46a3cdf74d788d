"""The page of the server: what it loads, and, in headless Chromium, what it shows of an answer."""

import html
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import get_args

import pytest

from citeflow.evaluation.reasons import Kind

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript"}
ABOUT = {
    "name": "citeflow",
    "version": "0f" * 32,
    "dataset": "small",
    "num_papers": 1234,
    "num_citations": 5678,
    "has_dates": True,
    "has_titles": True,
    "has_text": False,
    "num_features": 4,
    "citeflow": "0.1.0",
}
ANSWER = {
    "remarks": ["no features of its own"],
    "predictions": [
        {
            "rank": 1,
            "id": 3,
            "title": "<img src=x onerror=document.title='taken'>",
            "date": "1999-01-02",
            "probability": 0.91,
            "logit": 2.3,
            "reasons": [
                {
                    "kind": "co_citation",
                    "papers": [2, 12],
                    "num_papers": 2,
                    "citing": [22],
                    "num_citing": 1,
                    "value": 0.1,
                    "text": 'cited together with "On 2 (12) things" (2) and "Strings" (12), '
                    'which you cite, by "Branes" (22)',
                }
            ],
        }
    ],
}
PAPER = {"id": 1, "title": "Black holes", "date": "2001-01-01", "cited_by": 4, "num_references": 60}


CHECK = """
const looking = setInterval(async () => {
  if (!document.querySelector(".prediction, .problem")) return;
  clearInterval(looking);
  const { passes, violations } = await axe.run(document);
  const found = document.createElement("pre");
  found.id = "axe";
  found.textContent = JSON.stringify({
    passes: passes.length,
    violations: violations.map((each) => [each.id, ...each.nodes.map((node) => node.html)]),
  });
  document.body.append(found);
}, 50);
"""


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as the server does, for paper 1, and hands out the page."""

    def do_GET(self):
        answers = {
            "/v1/about": ABOUT,
            "/v1/papers/1": {**PAPER, "references": [{"id": 7, "title": "A reference"}]},
            "/v1/papers/1/citations": ANSWER,
            "/v1/citations": ANSWER,
        }
        if self.path in answers:
            self.answer(200, "application/json", json.dumps(answers[self.path]).encode())
        elif self.path.startswith("/v1/"):
            problem = {
                "title": "Not Found",
                "detail": "no such paper: 9",
                "hint": "did you mean 1?",
            }
            self.answer(404, "application/problem+json", json.dumps(problem).encode())
        else:
            name = self.path.strip("/") or "index.html"
            path = self.server.page / name
            kind = TYPES.get(path.suffix[1:], "image/svg+xml")
            self.answer(200, kind, self.server.others.get(name) or path.read_bytes())

    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.do_GET()

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def page(checkout):
    return checkout / "src" / "citeflow" / "serving" / "page"


@pytest.fixture
def server(page):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.page, server.asked, server.others = page, [], {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def shown(server, tmp_path):
    """Return the page that Chromium makes of an address: its HTML, and its text."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")

    def show(fragment, *more):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
        options += more
        address = f"http://127.0.0.1:{server.server_port}/{fragment}"
        command = [CHROMIUM, *options, f"--user-data-dir={tmp_path}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        return done.stdout, html.unescape(re.sub(r"<[^>]*>", " ", done.stdout))

    return show


def test_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(page):
    text = "\n".join(path.read_text() for path in page.iterdir())
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    index = (page / "index.html").read_text()
    assert not re.search(r"<style|style=|\bon\w+=|<script(?![^>]*\bsrc=)", index)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|eval\(|new Function", text)
    loaded = set(re.findall(r'(?:src|href)="([\w.]+)"', index)) - {"./"}
    loaded |= set(re.findall(r'from "\./([\w.]+)"', text))
    assert loaded | {"index.html"} == {path.name for path in page.iterdir()}


def test_page_has_a_colour_for_each_kind_of_reason(page):
    drawing = (page / "drawing.js").read_text()
    groups = dict(re.findall(r"^  (\w+): \"(\w+)\",$", drawing.partition("LEGEND")[0], re.M))
    assert set(groups) == set(get_args(Kind))
    colours = set(re.findall(r"^\.(\w+) \{ --kind", (page / "page.css").read_text(), re.M))
    assert set(groups.values()) == colours


def test_page_shows_answer_with_reasons_as_links_and_a_drawing(server, shown):
    source, text = shown("#paper=1&k=5&cited=1")
    assert server.asked == [{"k": 5, "exclude_cited": False, "exact": False}]
    for words in ("Black holes", "cited by 4", "cites 60", "no features of its own", "0.91"):
        assert words in " ".join(text.split())
    linked = re.findall(r'<a href="#paper=(\d+)&amp;k=5&amp;cited=1">(["“][^<]*)</a>', source)
    named = [("2", '"On 2 (12) things" (2)'), ("12", '"Strings" (12)'), ("22", '"Branes" (22)')]
    assert [(number, html.unescape(words)) for number, words in linked] == named
    drawing = source[source.index("<svg") :]
    assert drawing.count('class="between"') == 2
    assert drawing.count('class="together"') >= 2
    assert (
        "<title>Black holes · citeflow</title>" in source
    )  # the title of paper 3 is text, not HTML
    assert "<img" not in source


def test_page_asks_for_a_new_paper_from_its_address(server, shown):
    source, _ = shown("#references=7%2C+8%0A9&date=2003-01&title=On+strings&since=1995")
    (asked,) = server.asked
    assert asked == {
        "references": ["7", "8", "9"],
        "title": "On strings",
        "date": "2003-01",
        "k": 10,
        "exclude_cited": True,
        "exact": False,
        "since": "1995",
    }
    assert 'class="prediction"' in source
    assert re.search(r'class="of-text" hidden', source), "the graph's features are not made of text"


def test_page_shows_a_problem_as_one_line_with_its_hint(shown):
    source, _ = shown("#paper=9")
    (line,) = re.findall(r'<p class="problem card" role="alert">(.*?)<button', source)
    assert line == "no such paper: 9<span>did you mean 1?</span>"


@pytest.mark.parametrize("scheme", ["Light", "Dark"])
@pytest.mark.parametrize("fragment", ["#paper=1", "#paper=9"])
def test_page_has_no_fault_that_axe_finds(server, page, shown, fragment, scheme):
    axe = Path(importlib.util.find_spec("axe_core_python").origin).with_name("axe.min.js")
    scripts = b'<script src="axe.js"></script><script src="check.js"></script></body>'
    server.others = {
        "axe.js": axe.read_bytes(),
        "check.js": CHECK.encode(),
        "index.html": (page / "index.html").read_bytes().replace(b"</body>", scripts),
    }
    number = ["Dark", "Light"].index(scheme)
    source, _ = shown(fragment, f"--blink-settings=preferredColorScheme={number}")
    found = json.loads(html.unescape(re.search(r'<pre id="axe">(.*?)</pre>', source, re.S)[1]))
    assert found["violations"] == []
    assert found["passes"] > 20
