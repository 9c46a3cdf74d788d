"""An index takes the place of another without a lost request, and a faulty one never does."""

import shutil
import threading

import numpy as np
import pytest
import requests
from serving.conftest import picture, running, wait_until

from citeflow import files
from citeflow.paths import RunPaths
from citeflow.serving.citation.index import write_index
from citeflow.serving.images.index import write_index as write_image_index
from citeflow.tasks import load_settings

WATCH_S = 0.05
NUM_REQUESTS = 1_000


PICTURE = picture(np.eye(8) * 255)
ASKED = {
    "citation": ("/v1/citations", {"json": {"papers": ["p3", "1"]}}),
    "images": ("/v1/images:classify", {"data": PICTURE}),
}
"""A request that each index of a task answers."""

LARGEST = {"citation": "embedding.npy", "images": "model.safetensors"}


@pytest.fixture(scope="module")
def other_folder(text_trained, tmp_path_factory):
    return write_index(
        text_trained.model, text_trained.graph, tmp_path_factory.mktemp("other") / "index"
    )


@pytest.fixture(scope="module")
def other_image_folder(digits, train_alone, tmp_path_factory):
    config = load_settings("images", overrides=["train.epochs=1", "train.seed=1"])
    model = train_alone(digits.images, RunPaths(digits.data_root, "other"), config)
    return write_image_index(model, tmp_path_factory.mktemp("other") / "digits")


@pytest.fixture(params=["citation", "images"])
def task(request):
    return request.param


@pytest.fixture
def folders(task, request):
    """Two indices of a task."""
    names = {
        "citation": ("index_folder", "other_folder"),
        "images": ("image_folder", "other_image_folder"),
    }
    return [request.getfixturevalue(name) for name in names[task]]


@pytest.fixture
def link(folders, tmp_path):
    """A link that is moved from one index to the other and back."""
    indices = [shutil.copytree(each, tmp_path / str(i)) for i, each in enumerate(folders)]
    link = tmp_path / "current"
    link.symlink_to(indices[0])

    def move(number):
        new = tmp_path / "new"
        new.symlink_to(indices[number])
        new.rename(link)

    return link, indices, move


def ask(server, task, **options):
    path, body = ASKED[task]
    return requests.post(server.url + path, timeout=120, **body, **options)


def version(server):
    return server.get("/v1/about").json()["version"]


def test_no_request_is_lost_while_indices_change(link, task, capfd):
    path, indices, move = link
    versions = [files.read_manifest(each, "ServingIndex").sha256 for each in indices]
    with running(path, watch_s=WATCH_S, max_waiting=100) as server:
        statuses, stop = [], threading.Event()

        def ask_on():
            path, body = ASKED[task]
            with requests.Session() as session:
                while not stop.is_set():
                    response = session.post(server.url + path, timeout=120, **body)
                    statuses.append(response.status_code)

        askers = [threading.Thread(target=ask_on) for _ in range(4)]
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


def test_a_faulty_index_is_not_taken_up(link, task):
    path, indices, move = link
    with running(path, watch_s=WATCH_S) as server:
        good = version(server)
        content = bytearray((indices[1] / LARGEST[task]).read_bytes())
        content[-1] ^= 1
        (indices[1] / LARGEST[task]).write_bytes(content)
        move(1)
        wait_until(lambda: 'index_loads_total{result="failed"} 1.0' in server.get("/metrics").text)
        assert version(server) == good
        assert server.get("/v2/health/ready").json() == {"ready": True}
        (indices[1] / files.MANIFEST).unlink()
        assert ask(server, task).status_code == 200
        assert version(server) == good


def test_an_index_that_appears_later_is_taken_up(link, task, tmp_path):
    _, indices, _ = link
    with running(tmp_path / "later", watch_s=WATCH_S, wait=False) as server:
        assert server.get("/v2/health/ready").status_code == 503
        shutil.copytree(indices[0], tmp_path / "copy")
        (tmp_path / "copy").rename(tmp_path / "later")
        wait_until(lambda: server.holder.is_ready)
        assert ask(server, task).status_code == 200
        assert 'result="failed"' not in server.get("/metrics").text


def test_a_folder_that_is_replaced_in_place_is_taken_up(folders, task, tmp_path):
    first, second = folders
    folder = tmp_path / "index"
    files.copy_directory(first, folder)
    with running(folder, watch_s=WATCH_S) as server:
        files.copy_directory(second, folder)
        other = files.read_manifest(second, "ServingIndex").sha256
        wait_until(lambda: version(server) == other)
        assert ask(server, task).status_code == 200


def test_an_index_of_another_task_brings_its_own_routes(index_folder, image_folder, tmp_path):
    folder = tmp_path / "index"
    files.copy_directory(index_folder, folder)
    with running(folder, watch_s=WATCH_S) as server:
        assert ask(server, "images").status_code == 404
        files.copy_directory(image_folder, folder)
        wait_until(lambda: ask(server, "images").status_code == 200)
        assert ask(server, "citation").status_code == 404
        paths = server.get("/openapi.json").json()["paths"]
        assert "/v1/images:classify" in paths
        assert "/v1/citations" not in paths
        size_of_papers = 'citeflow_serving_size{of="papers"}'  # it is set behind the swap
        wait_until(lambda: size_of_papers not in server.get("/metrics").text)
