"""The live view of a run: every event once, in order, also after a break."""

import json
import shutil

import pytest

from citeflow import files
from citeflow.paths import RunPaths
from citeflow.platform.events import AT_A_TIME, Cursor
from citeflow.platform.records import Records
from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import RunLog

API = "/api/v1"

LOG = [
    "12:00:00 run starts name=first dataset=synthetic data_root=/d",
    "12:00:01 download generating dataset=synthetic",
    "12:00:05 train[rank 0] training step=1,200 of=4,000 done=30% loss=0.31 left=1 min 20 s",
    "12:00:05 train[rank 1] starting step=0",
    "something else",
]


@pytest.fixture
def ended_run(platform, succeed):
    run = platform.submit("ann")
    platform.backend.logs[run["id"]] = LOG
    succeed(platform, run)
    return run


def events(text):
    """Return id, kind and data of each event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def watch(platform, run, **options):
    return platform.client("ann").get(f"{API}/runs/{run['id']}/events", **options)


def test_stream_has_all_of_a_run_and_ends_with_it(platform, ended_run):
    answer = watch(platform, ended_run)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert found[0][1] == "run"
    assert found[0][2]["state"] == "succeeded"
    lines = [data for _, kind, data in found if kind == "log"]
    assert [line["line"] for line in lines] == LOG
    assert [line["rank"] for line in lines] == [None, None, 0, 1, None]
    metrics = [data for _, kind, data in found if kind == "metrics"]
    scores = [each for each in metrics if "validation mrr" in each["values"]]
    assert len(scores) == 6
    assert any("loss" in each["values"] for each in metrics)
    resources = [data for _, kind, data in found if kind == "resources"]
    assert resources[-1]["memory"] > 1e6


def test_stream_goes_on_behind_each_event(platform, ended_run):
    found = events(watch(platform, ended_run).text)
    numbered = [event for event in found if event[0]]
    for place in (0, 3, len(numbered) // 2, len(numbered) - 2):
        headers = {"Last-Event-ID": numbered[place][0]}
        rest = events(watch(platform, ended_run, headers=headers).text)
        assert [event for event in rest if event[0]] == numbered[place + 1 :]
    last = {"Last-Event-ID": numbered[-1][0]}
    assert watch(platform, ended_run, headers=last).status_code == 204
    assert len(events(watch(platform, ended_run, params={"after": "nonsense"}).text)) == len(found)


def test_log_is_by_rank_and_goes_on(platform, ended_run):
    client, path = platform.client("ann"), f"{API}/runs/{ended_run['id']}/logs"
    assert client.get(path).json()["ranks"] == [0, 1]
    assert [each["n"] for each in client.get(f"{path}?rank=0").json()["lines"]] == [3]
    assert [each["n"] for each in client.get(f"{path}?after=3").json()["lines"]] == [4, 5]


def test_live_stream_tells_of_each_change(platform, finished_run):
    """A run that is written while it is watched."""
    run = platform.submit("ann")
    platform.tick()
    logs = platform.backend.folder("ann") / "logs" / run["name"]
    seen = []

    def change(n):
        if n == 0:
            platform.backend.logs[run["id"]] = LOG[:2]
            shutil.copytree(finished_run / "logs", logs)
        else:
            platform.backend.end(run["id"], "stopped")
            platform.tick()

    import asyncio

    async def stream():
        runs = platform.services.runs
        feeds = type(platform.services.feeds)(runs, every_s=0.01)
        from citeflow.platform.accounts import Account

        account = Account(name="ann", role="user", size="M")
        row = runs.row(account, run["id"])
        changes = iter([0, 1])
        async for text in feeds.stream(account, row, Cursor(), lambda: True):
            new = events(text)
            seen.extend(new)
            is_step = any(kind in ("run", "metrics") for _, kind, _ in new)
            if is_step and (step := next(changes, None)) is not None:
                await asyncio.to_thread(change, step)
        feeds.close()

    asyncio.run(asyncio.wait_for(stream(), 60))
    states = [data["state"] for _, kind, data in seen if kind == "run"]
    assert (states[0], states[-1]) == ("running", "stopped")
    assert [data["n"] for _, kind, data in seen if kind == "log"] == [1, 2]
    ids = [event_id for event_id, _, _ in seen if event_id]
    assert len(ids) == len(set(ids))


def test_each_of_many_streams_gets_all_of_a_run(platform):
    import asyncio

    from citeflow.platform.accounts import Account

    run = platform.submit("ann")
    platform.tick()

    def change():
        platform.backend.logs[run["id"]] = LOG[:2]
        platform.backend.end(run["id"], "stopped")
        platform.tick()

    async def watch(feeds):
        account = Account(name="ann", role="user", size="M")
        row = platform.services.runs.row(account, run["id"])
        texts = [text async for text in feeds.stream(account, row, Cursor(), lambda: True)]
        return events("".join(texts))

    async def watch_all():
        feeds = type(platform.services.feeds)(platform.services.runs, every_s=0.01)
        watching = [asyncio.create_task(watch(feeds)) for _ in range(2 * AT_A_TIME + 5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(change)
        found = await asyncio.gather(*watching)
        feeds.close()
        return found

    for seen in asyncio.run(asyncio.wait_for(watch_all(), 60)):
        assert [data["n"] for _, kind, data in seen if kind == "log"] == [1, 2]
        assert [data["state"] for _, kind, data in seen if kind == "run"][-1] == "stopped"


def test_stream_ends_where_the_session_has(platform):
    import asyncio

    from citeflow.platform.accounts import Account

    run = platform.submit("ann")

    async def stream():
        runs = platform.services.runs
        feeds = type(platform.services.feeds)(runs, every_s=0.01, alive_s=0.05)
        account = Account(name="ann", role="user", size="M")
        row = runs.row(account, run["id"])
        answers = iter([True, False])
        found = feeds.stream(account, row, Cursor(), lambda: next(answers))
        texts = [text async for text in found]
        feeds.close()
        return texts

    texts = asyncio.run(asyncio.wait_for(stream(), 60))
    assert texts.count(": alive\n\n") == 1


def test_records_of_a_resumed_training_replace_what_was_lost(tmp_path):
    paths = RunPaths(tmp_path, "first")
    records = Records(paths, lambda after: [])

    def write(steps, resumed):
        log = RunLog(paths.logs, purge_step=steps[0] if resumed else None)
        for step in steps:
            values = {"loss": float(step), "lr": 0.1, "positives_per_s": 1.0}
            log.step({"step": step, "wall_time": 1e9 + step, **values})
            records.update()
        log.close()

    write([1, 2, 3, 4], resumed=False)
    assert [event.step for event in records.metrics] == [1, 2, 3, 4]
    write([3, 4, 5], resumed=True)
    assert [event.step for event in records.metrics] == [1, 2, 3, 4, 3, 4, 5]
    assert [event.step for event in records.current()] == [1, 2, 3, 3, 4, 5]


def test_records_leave_half_a_record_for_later(tmp_path):
    paths = RunPaths(tmp_path, "first")
    records = Records(paths, lambda after: [])
    record = event_files.scalars({"train/loss": 1.0}, step=1, wall_time=1.0)
    whole = event_files.frame([event_files.header(1.0), record])
    path = paths.logs / event_files.next_name(paths.logs, event_files.TRAIN, now=1.0)
    for end in range(len(whole) + 1):
        files.write_bytes(path, whole[:end])
        records.update()
        assert len(records.metrics) == (end == len(whole))


def test_progress_is_read_from_the_log(tmp_path):
    lines = list(LOG)
    records = Records(RunPaths(tmp_path, "first"), lambda after: lines[after:])
    records.update()
    progress = records.progress
    assert progress is not None
    assert (progress.stage, progress.steps, progress.fraction) == ("train", 4_000, 0.3)
    lines.append("12:00:09 train[rank 0] training step=1,300 done=32% left=70 s")
    records.update()
    assert (records.progress.step, records.progress.seconds_left) == (1_300, 70)
    lines.append("12:01:09 evaluate ranking seconds=60 done=10 of=40 left=1 h 02 min")
    records.update()
    assert (records.progress.fraction, records.progress.seconds_left) == (0.25, 3_720)


def test_progress_without_counts_says_what_is_done_and_for_how_long(tmp_path):
    lines = ["23:59:50 preprocess reading path=/data/raw"]
    records = Records(RunPaths(tmp_path, "first"), lambda after: lines[after:])

    def progress_after(line):
        lines.append(line)
        records.update()
        progress = records.progress
        return progress.doing, progress.seconds, progress.step, progress.fraction

    finding = "00:00:10 preprocess finding similar papers seconds=5 done=40 of=80 left=5 s"
    assert progress_after(finding) == ("finding similar papers", 20, 40, 0.5)
    at_work = "00:00:12 preprocess at work seconds=22"
    assert progress_after(at_work) == ("finding similar papers", 22, 40, 0.5)
    assert progress_after("00:00:15 preprocess ordered") == ("ordered", 25, None, None)
    assert progress_after("00:01:00 evaluate embedding the papers seconds=6")[1] == 0
