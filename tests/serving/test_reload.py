"""An index takes the place of another without a lost request, and a faulty one never does."""

import shutil
import threading

import pytest
import requests
from serving.conftest import running, wait_until

from citeflow import files
from citeflow.serving.index import write_index

WATCH_S = 0.05
NUM_REQUESTS = 1_000


@pytest.fixture(scope="module")
def other_folder(text_trained, tmp_path_factory):
    return write_index(
        text_trained.model, text_trained.graph, tmp_path_factory.mktemp("other") / "index"
    )


@pytest.fixture
def link(index_folder, other_folder, tmp_path):
    """A link that is moved from one index to the other and back."""
    indices = [
        shutil.copytree(each, tmp_path / each.parent.name) for each in (index_folder, other_folder)
    ]
    link = tmp_path / "current"
    link.symlink_to(indices[0])

    def move(number):
        new = tmp_path / "new"
        new.symlink_to(indices[number])
        new.rename(link)

    return link, indices, move


def version(server):
    return server.get("/v1/about").json()["version"]


def test_no_request_is_lost_while_indices_change(link, capfd):
    path, indices, move = link
    versions = [files.read_manifest(each, "ServingIndex").sha256 for each in indices]
    with running(path, watch_s=WATCH_S, max_waiting=100) as server:
        statuses, stop = [], threading.Event()

        def ask():
            with requests.Session() as session:
                while not stop.is_set():
                    body = {"papers": ["p3", "1"]}
                    response = session.post(f"{server.url}/v1/citations", json=body, timeout=120)
                    statuses.append(response.status_code)

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for each in askers:
            each.start()
        for number in (1, 0, 1, 0):
            move(number)
            wait_until(lambda number=number: version(server) == versions[number])
        wait_until(lambda: len(statuses) >= NUM_REQUESTS)
        stop.set()
        for each in askers:
            each.join()
    assert set(statuses) == {200}


def test_a_faulty_index_is_not_taken_up(link):
    path, indices, move = link
    with running(path, watch_s=WATCH_S) as server:
        good = version(server)
        content = bytearray((indices[1] / "embedding.npy").read_bytes())
        content[-1] ^= 1
        (indices[1] / "embedding.npy").write_bytes(content)
        move(1)
        wait_until(lambda: 'index_loads_total{result="failed"} 1.0' in server.get("/metrics").text)
        assert version(server) == good
        assert server.get("/v2/health/ready").json() == {"ready": True}
        (indices[1] / files.MANIFEST).unlink()
        assert server.post("/v1/papers/p300/citations").status_code == 200
        assert version(server) == good


def test_an_index_that_appears_later_is_taken_up(link, tmp_path):
    _, indices, _ = link
    with running(tmp_path / "later", watch_s=WATCH_S, wait=False) as server:
        assert server.get("/v2/health/ready").status_code == 503
        shutil.copytree(indices[0], tmp_path / "copy")
        (tmp_path / "copy").rename(tmp_path / "later")
        wait_until(lambda: server.holder.is_ready)
        assert server.post("/v1/papers/p300/citations").status_code == 200
        assert 'result="failed"' not in server.get("/metrics").text


def test_a_folder_that_is_replaced_in_place_is_taken_up(index_folder, other_folder, tmp_path):
    folder = tmp_path / "index"
    files.copy_directory(index_folder, folder)
    with running(folder, watch_s=WATCH_S) as server:
        files.copy_directory(other_folder, folder)
        other = files.read_manifest(other_folder, "ServingIndex").sha256
        wait_until(lambda: version(server) == other)
        assert server.post("/v1/citations", {"title": "theme1 theme2"}).status_code == 200
