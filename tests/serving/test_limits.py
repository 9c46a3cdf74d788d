"""A server whose threads are all at work: what it refuses, and what it answers all the same."""

import asyncio
import threading
from http import HTTPStatus

import pytest

from citeflow.evaluation.answers import Wanted
from citeflow.serving.app import Limits, create_app
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.reload import IndexHolder, Source

SECONDS = 30
PAPER = "/v1/papers/p300/citations"
PAPER_ROUTE = "/v1/papers/{paper:path}/citations"
BATCH = "/v1/citations:batch"
INFER = "/v2/models/citeflow/infer"
INFER_ROUTE = "/v2/models/{model}/infer"
JSON = [(b"content-type", b"application/json")]


class BusyServer:
    """An application with a thread of each kind, no place to wait, and no index."""

    def __init__(self):
        self.metrics = ServerMetrics()
        holder = IndexHolder(Source(find=lambda: None), self.metrics)
        self.app = create_app(holder, self.metrics, Limits(threads=1, max_waiting=0))
        self.queues = self.app.state.asked.queues

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
        headers = dict(sent[0]["headers"])
        assert (headers.get(b"retry-after") == b"1") == (sent[0]["status"] in (429, 503))
        return sent[0]["status"]

    def ask(self, busy, *requests):
        """Return the status of each request while the threads of some queues are at work."""
        release = threading.Event()

        async def ask():
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
    ("path", "route"),
    [
        (PAPER, PAPER_ROUTE),
        ("/v1/citations", "/v1/citations"),
        (BATCH, BATCH),
        (INFER, INFER_ROUTE),
    ],
)
def test_a_request_beyond_the_queue_is_refused_before_its_body_is_read(path, route):
    server = BusyServer()
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


def test_a_paper_waits_for_no_batch_and_a_batch_for_no_paper():
    paper, batch = (PAPER, "POST", b"{}"), (BATCH, "POST", b'{"queries": [{"paper": "p3"}]}')
    # 503, as there is no index.
    assert BusyServer().ask(["long"], paper, batch) == [503, 429]
    assert BusyServer().ask(["short"], paper, batch) == [429, 503]


def test_scans_and_batches_have_a_queue_of_their_own():
    queues = BusyServer().queues
    assert queues.of(1, Wanted(exact=False)) is queues.short
    assert queues.of(1, Wanted(exact=True)) is queues.long
    assert queues.of(2, Wanted(exact=False)) is queues.long
