"""ServingIndices of the session's small models, one of each task, and servers of them."""

import contextlib
import io
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import requests
from digit_runs import classified, digits  # noqa: F401
from PIL import Image

from citeflow.serving.app import Limits, create_app
from citeflow.serving.citation.index import ServingIndex, write_index
from citeflow.serving.images.index import write_index as write_image_index
from citeflow.serving.listening import Address, Server, make_config
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.reload import IndexHolder, Source

READY_S = 120


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that is ready."""

    url: str
    holder: IndexHolder

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=READY_S, **options)

    def post(self, path, body=None, **options):
        return requests.post(self.url + path, json=body, timeout=READY_S, **options)

    def classify(self, file, query=""):
        return requests.post(f"{self.url}/v1/images:classify{query}", file, timeout=READY_S)


@pytest.fixture(scope="session")
def index_folder(trained, tmp_path_factory):
    return write_index(trained.model, trained.graph, tmp_path_factory.mktemp("serving") / "index")


@pytest.fixture(scope="session")
def index(index_folder):
    return ServingIndex.open(index_folder)


@pytest.fixture(scope="session")
def text_index(text_trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving") / "text"
    return ServingIndex.open(write_index(text_trained.model, text_trained.graph, folder))


@pytest.fixture(scope="session")
def image_folder(classified, tmp_path_factory):  # noqa: F811
    """An index of the classifier of digits."""
    return write_image_index(classified.model, tmp_path_factory.mktemp("serving") / "digits")


def picture(pixels, format="PNG"):
    """Return an array [H, W] or [H, W, C] as a file."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, format)
    return file.getvalue()


@contextlib.contextmanager
def running(folder, *, watch_s=None, wait=True, **limits):
    """Serve a folder from a thread; yields a Running."""
    metrics = ServerMetrics()
    holder = IndexHolder(Source(find=lambda: folder, watch_s=watch_s), metrics)
    server = Server(make_config(create_app(holder, metrics, Limits(**limits))), holder.leave)
    with Address(port=0).bind() as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            found = Running(url=f"http://127.0.0.1:{listener.getsockname()[1]}", holder=holder)
            if wait:
                wait_until(lambda: holder.is_ready)
            yield found
        finally:
            server.should_exit = True
            thread.join(READY_S)
    assert not thread.is_alive()


def wait_until(is_true):
    end = time.monotonic() + READY_S
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="session")
def server(index_folder):
    with running(index_folder) as found:
        yield found


@pytest.fixture(scope="session")
def image_server(image_folder):
    with running(image_folder) as found:
        yield found
