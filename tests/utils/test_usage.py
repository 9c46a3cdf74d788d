"""What is used, read from made-up control groups and from this very process."""

import math
import mmap
import os
import time

import psutil
import pytest

from citeflow.utils import usage
from citeflow.utils.usage import Source, Usage, rates, spent

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
def test_the_container_is_read_from_control_groups_of_both_versions(
    tmp_path, entries, cpu_s, memory
):
    seen = Source(tree(tmp_path, entries)).read()
    assert (seen.container_cpu_s, seen.container_bytes) == (cpu_s, memory)


def test_where_there_is_no_control_group_the_machine_counts(tmp_path):
    seen = Source(tmp_path).read()
    assert seen.container_cpu_s > time.process_time()
    assert seen.container_bytes == pytest.approx(psutil.virtual_memory().used, rel=0.5)


def test_a_group_that_counts_only_processors_leaves_memory_to_the_machine(tmp_path):
    seen = Source(tree(tmp_path, {"cpu.stat": V2["cpu.stat"]})).read()
    assert seen.container_cpu_s == 2.5
    assert seen.container_bytes > 1e7


def test_a_group_that_vanishes_is_an_error_and_not_another_figure(tmp_path):
    source = Source(tree(tmp_path, V2))
    (tmp_path / "memory.current").unlink()
    with pytest.raises(FileNotFoundError):
        source.read()


def test_what_a_system_does_not_tell_is_unknown(monkeypatch, tmp_path):
    def hidden(process):
        raise psutil.AccessDenied

    monkeypatch.setattr(usage, "_disk", hidden)
    seen = Source(tree(tmp_path, V2)).read()
    assert math.isnan(seen.read_bytes)
    assert math.isnan(seen.written_bytes)
    assert seen.container_cpu_s == 2.5
    assert set(spent()) == {"seconds", "cpu_seconds", "received_bytes", "sent_bytes"}


def test_cores_are_those_that_are_really_kept_busy():
    source = Source()
    before = source.read()
    cpu_s = time.process_time()
    while time.process_time() < cpu_s + 0.4:
        pass
    after = source.read()
    assert after.cpu_s - before.cpu_s == pytest.approx(0.4, abs=0.1)
    assert 0 < rates(before, after)["cpu_cores"] < 1.3


def test_memory_is_that_which_is_really_touched_and_shared_memory_is_told_apart():
    source, size = Source(), 64 * 2**20
    before = source.read()
    own = bytearray(os.urandom(1)) * size
    private = source.read()
    with mmap.mmap(-1, size) as shared:
        shared.write(b"\1" * size)
        both = source.read()
        assert both.shared_bytes - private.shared_bytes == pytest.approx(size, rel=0.1)
        assert both.rss_bytes - private.rss_bytes == pytest.approx(size, rel=0.1)
    assert private.rss_bytes - before.rss_bytes == pytest.approx(size, rel=0.1)
    assert private.shared_bytes - before.shared_bytes < size / 10
    assert len(own) == size


def test_bytes_are_those_that_are_really_written(tmp_path):
    source, size = Source(), 8 * 2**20
    before = source.read()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    written = source.read().written_bytes - before.written_bytes
    if written == 0:
        pytest.skip("this file system is not on a disk, or its writes are not counted")
    assert written == pytest.approx(size, rel=0.2)


def test_rates_are_growth_by_time():
    before = Usage(**{**dict.fromkeys(Usage.__slots__, 0.0), "at": 10.0})
    after = Usage(**{**dict.fromkeys(Usage.__slots__, 6.0), "at": 14.0, "read_bytes": math.nan})
    found = rates(before, after)
    assert (found["cpu_cores"], found["written_bytes_per_s"]) == (1.5, 1.5)
    assert math.isnan(found["read_bytes_per_s"])
