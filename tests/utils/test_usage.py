"""Usage of this process, and of control groups that were made up."""

import math
import mmap
import os
import time

import psutil
import pytest

from citeflow.utils.usage import StageMeter, UsageReader, rates

V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
    "memory.current": "1000\n",
    "memory.stat": "anon 600\nfile 400\ninactive_file 300\nactive_file 100\n",
}
V1 = {
    "cpuacct/cpuacct.usage": "1500000000\n",
    "memory/memory.usage_in_bytes": "2000\n",
    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
}


def tree(folder, entries):
    for name, text in entries.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("entries", "cpu_s", "memory"), [(V2, 2.5, 700), (V1, 1.5, 1500)])
def test_reader_reads_control_groups_of_both_versions(tmp_path, entries, cpu_s, memory):
    seen = UsageReader(tree(tmp_path, entries)).read()
    assert (seen.container_cpu_s, seen.container_bytes) == (cpu_s, memory)


def test_reader_takes_missing_figures_from_the_machine(tmp_path):
    seen = UsageReader(tree(tmp_path, {"cpu.stat": V2["cpu.stat"]})).read()
    assert seen.container_cpu_s == 2.5
    assert seen.container_bytes > 1e7
    assert UsageReader(tmp_path / "none").read().container_cpu_s > time.process_time()
    reader = UsageReader(tree(tmp_path, V2))
    (tmp_path / "memory.current").unlink()
    with pytest.raises(FileNotFoundError):
        reader.read()


def test_reader_gives_nan_for_what_is_hidden(monkeypatch, tmp_path):
    def hidden(process):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "io_counters", hidden)
    seen = UsageReader(tree(tmp_path, V2)).read()
    assert math.isnan(seen.read_bytes)
    assert math.isnan(seen.written_bytes)
    assert seen.container_cpu_s == 2.5
    known = {"seconds", "cpu_seconds", "received_bytes", "sent_bytes", "peak_rss_bytes"}
    assert set(StageMeter().cost()) == known


def test_rates_count_the_cores_that_are_kept_busy():
    reader = UsageReader()
    before = reader.read()
    cpu_s = time.process_time()
    while time.process_time() < cpu_s + 0.4:
        pass
    after = reader.read()
    assert after.cpu_s - before.cpu_s == pytest.approx(0.4, abs=0.1)
    assert 0 < rates(before, after)["cpu_cores"] < 1.3


def test_reader_tells_private_from_shared_memory():
    reader, size = UsageReader(), 64 * 2**20
    before = reader.read()
    own = bytearray(os.urandom(1)) * size
    private = reader.read()
    with mmap.mmap(-1, size) as shared:
        shared.write(b"\1" * size)
        both = reader.read()
        assert both.shared_bytes - private.shared_bytes == pytest.approx(size, rel=0.1)
        assert both.rss_bytes - private.rss_bytes == pytest.approx(size, rel=0.1)
    assert private.rss_bytes - before.rss_bytes == pytest.approx(size, rel=0.1)
    assert private.shared_bytes - before.shared_bytes < size / 10
    assert len(own) == size
