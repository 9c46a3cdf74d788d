"""The queue before the threads: what waits too long, or behind too many, is told so."""

import asyncio
import threading
import time
from http import HTTPStatus

import pytest

from citeflow.serving.guard import Guard
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.problems import ProblemError
from citeflow.serving.work import PAUSE_S, WorkQueue

SECONDS = 30


def test_calls_beyond_the_queue_are_refused_and_the_others_answered():
    release = threading.Event()
    running = []

    def call(stop):
        running.append(threading.get_ident())
        assert release.wait(SECONDS)
        return "done"

    async def ask():
        work = WorkQueue(threads=2, max_waiting=3, timeout_s=SECONDS)
        accepted = [asyncio.create_task(work.run(call)) for _ in range(5)]
        await asyncio.sleep(0.05)
        refused = await asyncio.gather(*(work.run(call) for _ in range(4)), return_exceptions=True)
        assert [each.status for each in refused] == [HTTPStatus.TOO_MANY_REQUESTS] * 4
        assert refused[0].headers["Retry-After"] == "1"
        assert (work.pending, len(running)) == (5, 2)
        release.set()
        assert await asyncio.gather(*accepted) == ["done"] * 5
        await asyncio.sleep(0.05)
        assert work.pending == 0
        assert await work.run(call) == "done"
        work.close()

    asyncio.run(ask())
    assert len(set(running)) <= 2


def test_a_request_is_refused_before_its_body_is_read():
    release, sent = threading.Event(), []

    async def never(*_):
        raise AssertionError

    async def send(message):
        sent.append(message)

    async def ask():
        work = WorkQueue(threads=1, max_waiting=0, timeout_s=SECONDS)
        busy = asyncio.create_task(work.run(lambda _: release.wait(SECONDS)))
        await asyncio.sleep(0.05)
        guard = Guard(never, metrics=ServerMetrics(), work=work, max_body_bytes=int)
        scope = {"type": "http", "method": "POST", "path": "/v1/citations", "headers": []}
        began = time.monotonic()
        await guard(scope, never, send)
        assert time.monotonic() - began >= PAUSE_S
        release.set()
        await busy
        work.close()

    asyncio.run(ask())
    assert sent[0]["status"] == HTTPStatus.TOO_MANY_REQUESTS
    assert dict(sent[0]["headers"])[b"retry-after"] == b"1"


def test_a_call_that_takes_too_long_is_told_to_stop_and_keeps_its_place_until_it_has():
    ended = threading.Event()

    def call(stop):
        assert stop.wait(SECONDS)
        time.sleep(0.1)
        ended.set()

    async def ask():
        work = WorkQueue(threads=1, max_waiting=0, timeout_s=0.05)
        with pytest.raises(ProblemError) as raised:
            await work.run(call)
        assert raised.value.status == HTTPStatus.GATEWAY_TIMEOUT
        assert (work.pending, ended.is_set()) == (1, False)
        while work.pending:
            await asyncio.sleep(0.01)
        assert ended.is_set()
        work.close()

    asyncio.run(ask())


def test_a_call_that_waits_too_long_never_begins():
    began = []

    def call(stop):
        began.append(1)
        stop.wait(0.2)

    async def ask():
        work = WorkQueue(threads=1, max_waiting=5, timeout_s=0.05)
        found = await asyncio.gather(*(work.run(call) for _ in range(4)), return_exceptions=True)
        assert [each.status for each in found] == [HTTPStatus.GATEWAY_TIMEOUT] * 4
        while work.pending:
            await asyncio.sleep(0.01)
        work.close()

    asyncio.run(ask())
    assert began == [1]


def test_an_error_of_a_call_reaches_the_caller():
    def call(stop):
        raise ZeroDivisionError

    async def ask():
        work = WorkQueue(threads=1, max_waiting=0, timeout_s=SECONDS)
        with pytest.raises(ZeroDivisionError):
            await work.run(call)
        work.close()

    asyncio.run(ask())
