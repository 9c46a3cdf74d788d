"""A server whose threads are all at work: what it refuses, and what it answers all the same."""

import asyncio
import json
import threading
from http import HTTPStatus
from types import SimpleNamespace

import numpy as np
import pytest
from serving.conftest import picture

from citeflow.serving.app import ASKED, Limits, create_app
from citeflow.serving.images.index import ImageIndex
from citeflow.serving.metrics import ServerMetrics
from citeflow.tasks import get_task

SECONDS = 30
PAPER = "/v1/papers/p300/citations"
PAPER_ROUTE = "/v1/papers/{paper:path}/citations"
BATCH = "/v1/citations:batch"
CLASSIFY = "/v1/images:classify"
INFER = "/v2/models/citeflow/infer"
INFER_ROUTE = "/v2/models/{model}/infer"
JSON = [(b"content-type", b"application/json")]


class BusyServer:
    """An application with a thread of each kind, and no place to wait."""

    def __init__(self, task="citation", index=None):
        self.metrics = ServerMetrics()
        loaded = SimpleNamespace(task=get_task(task), index=index)
        holder = SimpleNamespace(loaded=loaded, is_ready=True)
        self.app = create_app(holder, self.metrics, Limits(threads=1, max_waiting=0))
        self.queues = None

    async def status(self, path, method="POST", body=None):
        """Ask; without a body to be had, an attempt to read it is an error."""
        sent = []

        async def receive():
            assert body is not None
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": JSON,
            "query_string": b"",
        }
        await self.app(scope, receive, send)
        self.queues = scope[ASKED].queues
        headers = dict(sent[0]["headers"])
        assert (headers.get(b"retry-after") == b"1") == (sent[0]["status"] in (429, 503))
        return sent[0]["status"]

    def ask(self, busy, *requests):
        """Return the status of each request while the threads of some queues are at work."""
        release = threading.Event()

        async def ask():
            await self.status("/v2/health/live", "GET")
            calls = [
                asyncio.create_task(getattr(self.queues, name).run(lambda _: release.wait(SECONDS)))
                for name in busy
            ]
            while sum(queue.pending for queue in (self.queues.short, self.queues.long)) < len(busy):
                await asyncio.sleep(0)
            try:
                return await asyncio.gather(*(self.status(*each) for each in requests))
            finally:
                release.set()
                await asyncio.gather(*calls)

        return asyncio.run(ask())


@pytest.mark.parametrize(
    ("task", "path", "route"),
    [
        ("citation", PAPER, PAPER_ROUTE),
        ("citation", "/v1/citations", "/v1/citations"),
        ("citation", BATCH, BATCH),
        ("citation", INFER, INFER_ROUTE),
        ("images", CLASSIFY, CLASSIFY),
        ("images", INFER, INFER_ROUTE),
    ],
)
def test_a_request_beyond_the_queue_is_refused_before_its_body_is_read(task, path, route):
    server = BusyServer(task)
    assert server.ask(["short", "long"], (path,)) == [HTTPStatus.TOO_MANY_REQUESTS]
    line = f'citeflow_serving_requests_total{{route="{route}",status="429"}} 1.0'
    assert line in server.metrics.page().decode()


def test_what_needs_no_thread_is_answered_beside_full_queues():
    requests = [
        ("/nothing", "POST"),
        ("/v1/about/it", "POST"),
        ("/v1/citations", "GET"),
        ("/nothing/here", "GET"),
        ("/v2/health/live", "GET"),
        ("/v2", "GET"),
    ]
    found = BusyServer().ask(["short", "long"], *requests)
    assert found == [405, 404, 405, 404, 200, 200]


def test_a_paper_waits_for_no_batch_and_a_batch_for_no_paper(index):
    paper, batch = (PAPER, "POST", b"{}"), (BATCH, "POST", b'{"queries": [{"paper": "p3"}]}')
    assert BusyServer(index=index).ask(["long"], paper, batch) == [200, 429]
    # A batch of one paper needs no more than a paper does.
    assert BusyServer(index=index).ask(["short"], paper) == [429]


def test_scans_and_batches_have_a_queue_of_their_own(index):
    scan = (PAPER, "POST", b'{"exact": true}')
    batch = (BATCH, "POST", b'{"queries": [{"paper": "p3"}, {"paper": "p4"}]}')
    assert BusyServer(index=index).ask(["long"], scan) == [429]
    assert BusyServer(index=index).ask(["short"], batch) == [200]


def test_a_picture_waits_for_no_batch_of_images(image_folder):
    index = ImageIndex.open(image_folder)
    black = np.zeros(index.shape[:2])

    def tensor(num):
        data = np.zeros((num, *index.shape)).astype(int)
        image = {"name": "image", "datatype": "UINT8", "shape": data.shape, "data": data.tolist()}
        return INFER, "POST", json.dumps({"inputs": [image]}).encode()

    requests = (CLASSIFY, "POST", picture(black)), tensor(1), tensor(2)
    assert BusyServer("images", index).ask(["long"], requests[0]) == [200]
    assert BusyServer("images", index).ask(["long"], *requests[1:]) == [200, 429]
    assert BusyServer("images", index).ask(["short"], *requests) == [429, 429, 429]
