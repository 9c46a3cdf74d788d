"""`citeflow serve` as a process: ready, told to end, killed, and with nothing to serve."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import requests
import torch
from serving.conftest import picture, wait_until

from citeflow.cli.main import main
from citeflow.serving.listening import Server

TIMEOUT_S = 120
CODE = "import sys; from citeflow.cli.main import main; sys.exit(main())"


@pytest.fixture
def start(tmp_path):
    """Start a server on a free port; returns the process and its URL when it is ready."""
    started = []

    def start(*arguments, wait_for=" ready "):
        log = tmp_path / f"{len(started)}.err"
        with log.open("w") as stderr, (tmp_path / f"{len(started)}.out").open("w") as stdout:
            process = subprocess.Popen(
                [sys.executable, "-c", CODE, "serve", *map(str, arguments), "--port", "0"],
                stdout=stdout,
                stderr=stderr,
            )
        started.append(process)
        wait_until(lambda: wait_for in log.read_text() or process.poll() is not None)
        found = re.search(r"url=(\S+)", log.read_text())
        assert found, log.read_text()
        return process, found[1]

    yield start
    for process in started:
        process.kill()
        process.wait(TIMEOUT_S)


def ask(url):
    return requests.post(f"{url}/v1/papers/p300/citations", timeout=TIMEOUT_S)


def test_a_killed_server_answers_again_and_one_that_is_told_to_ends_well(
    start, index_folder, index, capsys, tmp_path
):
    process, url = start(index_folder)
    first = ask(url).json()
    process.send_signal(signal.SIGKILL)
    assert process.wait(TIMEOUT_S) == -signal.SIGKILL
    process, url = start(index_folder)
    assert ask(url).json() == first
    check_client(url, first, capsys)
    # 200 queries take far longer than the signal.
    queries = [{"paper": name} for name in index.papers.ids[200:]]
    statuses = []

    def ask_many():
        body = {"queries": queries, "exact": True}
        response = requests.post(f"{url}/v1/citations:batch", json=body, timeout=TIMEOUT_S)
        statuses.append((response.status_code, len(response.json()["answers"])))

    asking = threading.Thread(target=ask_many)
    asking.start()
    while "citeflow_serving_pending 1.0" not in requests.get(f"{url}/metrics", timeout=9).text:
        pass
    process.terminate()
    asking.join(TIMEOUT_S)
    assert statuses == [(200, 200)]
    assert process.wait(TIMEOUT_S) == 0
    log = [json.loads(line) for line in (tmp_path / "1.out").read_text().splitlines()]
    assert log[-1]["route"] == "/v1/citations:batch"


def check_client(url, expected, capsys):
    """`citeflow ask` prints what `predict` does."""
    assert main(["ask", url, "--paper", "p300", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["ask", url, "--references", "p3,p4", "-k", "2", "--table"]) == 0
    assert capsys.readouterr().out.count("0.") >= 2
    assert main(["ask", url, "--paper", "nobody"]) == 66
    assert capsys.readouterr().err.startswith("error: no paper with this id: nobody\nhint: ")
    assert main(["ask", "http://127.0.0.1:1", "--paper", "p3"]) == 69


def test_the_index_of_a_run_is_made_where_it_is_not_there(trained, start, capsys):
    _, url = start(trained.run.name, "--data-root", trained.data_root)
    assert ask(url).status_code == 200
    assert main(["index", "small", "--data-root", str(trained.data_root)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["path"] == str(trained.run.index)
    assert made["sha256"] == requests.get(f"{url}/v1/about", timeout=9).json()["version"]


def test_a_killed_server_of_pictures_answers_again(classified, digits, start, capsys):
    first, url = start(classified.name, "--data-root", digits.data_root)
    file = picture(np.eye(8) * 255)

    def classify(url):
        return requests.post(f"{url}/v1/images:classify", file, timeout=TIMEOUT_S).json()

    answer = classify(url)
    assert len(answer["predictions"]) == 5
    first.kill()
    first.wait(TIMEOUT_S)
    assert main(["index", classified.name, "--data-root", str(digits.data_root)]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["path"] == str(classified.index)
    second, url = start(made["path"])
    assert classify(url) == answer
    second.terminate()
    assert second.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("options", [[], ["--watch"]])
@pytest.mark.parametrize("name", ["nothing", ".", "./papers.csv"])
def test_a_source_that_is_none_ends_the_server_with_one_line(
    name, options, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers.csv").touch()
    assert main(["serve", name, "--port", "0", "--data-root", str(tmp_path), *options]) == 66
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: nothing to serve here: {tmp_path / name}"
    assert ("such as ./index, may come later" in hint) == (options != [] and name == "nothing")


@pytest.mark.parametrize("name", ["./to/come", "link"])
def test_a_watched_source_may_come_later(name, tmp_path, start, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    process, url = start(name, "--watch", wait_for=" waiting for an index ")
    assert requests.get(f"{url}/v2/health/ready", timeout=TIMEOUT_S).status_code == 503
    process.terminate()
    assert process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize(("options", "threads"), [([], 1), (["--torch-threads", "3"], 3)])
def test_an_answer_is_computed_by_one_thread_or_by_as_many_as_are_asked_for(
    options, threads, index_folder, monkeypatch
):
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(Server, "run", lambda *_, **__: seen.append(torch.get_num_threads()))
    try:
        torch.set_num_threads(2)
        assert main(["serve", str(index_folder), "--port", "0", *options]) == 0
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]


def test_an_address_that_is_in_use_is_one_line(index_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(index_folder), "--port", port]) == 69
    assert f"error: cannot listen there (Address already in use): 127.0.0.1:{port}" in (
        capsys.readouterr().err
    )
