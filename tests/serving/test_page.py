"""The pages of the server: what they load, and, in headless Chromium, what they show."""

import base64
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

import numpy as np
import pytest
from serving.conftest import picture

from citeflow.evaluation.reasons import Kind
from citeflow.serving.app import PAGE
from citeflow.tasks import TASKS, get_task

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


IMAGE_ABOUT = {
    "name": "citeflow",
    "task": "images",
    "version": "0f" * 32,
    "dataset": "garments",
    "architecture": "batch_norm",
    "classes": ["<img src=x>", "Coat"],
    "height": 28,
    "width": 28,
    "channels": 1,
    "valid_accuracy": 0.91,
    "citeflow": "0.1.0",
}
CLASSES = {
    "width": 9,
    "height": 9,
    "remarks": ["resized from 9 x 9 to 28 x 28 pixels"],
    "predictions": [
        {"rank": 1, "label": "<img src=x>", "probability": 0.93, "logit": 2.3},
        {"rank": 2, "label": "Coat", "probability": 0.07, "logit": 0.3},
    ],
}
PNG = base64.b64encode(picture(np.zeros((9, 9)))).decode()
DROP = f"""
addEventListener("load", () => {{
  const bytes = Uint8Array.from(atob("{PNG}"), (each) => each.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "dropped.png", {{ type: "image/png" }}));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", {{ dataTransfer: data }}));
}});
"""


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as the server does, for paper 1, and hands out the page."""

    def do_GET(self):
        answers = {
            "/v1/about": ABOUT if self.server.page == folders("citation") else IMAGE_ABOUT,
            "/v1/papers/1": {**PAPER, "references": [{"id": 7, "title": "A reference"}]},
            "/v1/papers/1/citations": ANSWER,
            "/v1/citations": ANSWER,
        }
        if self.path == "/v1/images:classify" and self.server.asked[-1].startswith(b"\x89PNG"):
            self.answer(200, "application/json", json.dumps(CLASSES).encode())
        elif self.path in answers:
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
            kind = TYPES.get(name.rpartition(".")[2], "image/svg+xml")
            files = [each / name for each in self.server.page if (each / name).is_file()]
            self.answer(200, kind, self.server.others.get(name) or files[0].read_bytes())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_json = self.headers["Content-Type"] == "application/json"
        self.server.asked.append(json.loads(body) if is_json else body)
        self.path = self.path.partition("?")[0]
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


def folders(task):
    """Folders with the files of a page, its own first."""
    return (get_task(task).service().page, PAGE)


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.page, server.asked, server.others = folders("citation"), [], {}
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


@pytest.mark.parametrize("task", TASKS)
def test_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(task):
    files = [path for folder in folders(task) for path in folder.iterdir()]
    text = "\n".join(path.read_text() for path in files)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    index = (folders(task)[0] / "index.html").read_text()
    assert not re.search(r"<style|style=|\bon\w+=|<script(?![^>]*\bsrc=)", index)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|eval\(|new Function", text)
    loaded = set(re.findall(r'(?:src|href)="([\w.]+)"', index)) - {"./"}
    loaded |= set(re.findall(r'from "\./([\w.]+)"', text))
    assert sorted(loaded | {"index.html"}) == sorted(path.name for path in files)


def test_page_has_a_colour_for_each_kind_of_reason():
    own, shared = folders("citation")
    drawing = (own / "drawing.js").read_text()
    groups = dict(re.findall(r"^  (\w+): \"(\w+)\",$", drawing.partition("LEGEND")[0], re.M))
    assert set(groups) == set(get_args(Kind))
    colours = set(re.findall(r"^\.(\w+) \{ --kind", (shared / "page.css").read_text(), re.M))
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
def test_page_has_no_fault_that_axe_finds(server, shown, fragment, scheme):
    server.others = with_axe("citation")
    found = faults(shown, fragment, scheme)
    assert found["violations"] == []
    assert found["passes"] > 20


def with_axe(task, script=b""):
    """Return the files of a page that is checked when an answer is there."""
    axe = Path(importlib.util.find_spec("axe_core_python").origin).with_name("axe.min.js")
    scripts = b'<script src="axe.js"></script><script src="check.js"></script></body>'
    index = (folders(task)[0] / "index.html").read_bytes()
    return {
        "axe.js": axe.read_bytes(),
        "check.js": CHECK.encode() + script,
        "index.html": index.replace(b"</body>", scripts),
    }


def faults(shown, fragment, scheme):
    number = ["Dark", "Light"].index(scheme)
    source, _ = shown(fragment, f"--blink-settings=preferredColorScheme={number}")
    return json.loads(html.unescape(re.search(r'<pre id="axe">(.*?)</pre>', source, re.S)[1]))


@pytest.mark.parametrize("scheme", ["Light", "Dark"])
def test_page_of_pictures_asks_for_a_dropped_one_and_shows_its_classes(server, shown, scheme):
    server.page, server.others = folders("images"), with_axe("images", DROP.encode())
    found = faults(shown, "", scheme)
    assert found["violations"] == []
    assert found["passes"] > 20
    assert server.asked[0].startswith(b"\x89PNG")


def test_page_of_pictures_shows_labels_as_text_and_remarks(server, shown):
    server.page, server.others = folders("images"), with_axe("images", DROP.encode())
    source, text = shown("")
    assert re.search(r'<h3>&lt;img src=x&gt;</h3><span class="chance"[^>]*>0.93', source)
    assert "<img" not in source
    for words in ("one of 2 classes of garments", "resized from 9 x 9", "dropped.png", "0.9100"):
        assert words in " ".join(text.split())


def test_page_of_pictures_shows_a_problem_as_one_line_with_its_hint(server, shown):
    script = DROP.replace("[bytes]", '["no picture"]')
    server.page, server.others = folders("images"), with_axe("images", script.encode())
    source, _ = shown("")
    (line,) = re.findall(r'<p class="problem card" role="alert">(.*?)<button', source)
    assert line == "no such paper: 9<span>did you mean 1?</span>"
