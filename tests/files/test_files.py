import contextlib
import errno
import itertools
import json
import os
import resource
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError, UnavailableError

KIND = "RawDataset"
# Python 3.12 warns of forks beside the threads of numpy.
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def make(folder, content="one", **facts):
    """Write a small artifact."""
    with files.new_directory(folder) as work:
        files.write_text(work / "a.txt", content)
        files.save_array(work / "below.npy", np.arange(10))
        files.write_manifest(work, KIND, inputs={"from": "0" * 64}, facts=facts)
    return folder


@pytest.fixture
def artifact(tmp_path):
    return make(tmp_path / "artifact", "old")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def in_fork(work):
    """Run a function in a process of its own, and return its exit code."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(call, work, *, times=1):
    """Run a function in a process that is killed at the n-th call of a function of `os`."""
    calls = itertools.count(1)
    real = getattr(os, call)

    def kill_or_call(*args, **kwargs):
        if next(calls) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    def patched():
        setattr(os, call, kill_or_call)
        work()

    assert in_fork(patched) == -signal.SIGKILL


def in_threads(work, *arguments):
    """Call a function with each argument in a thread of its own, and return what they gave."""
    results = []

    def call(argument):
        try:
            results.append(work(argument))
        except Exception as error:  # which a thread would only print
            results.append(error)

    threads = [threading.Thread(target=call, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


def test_write_text_replaces_a_file_that_others_may_read(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        files.write_text(path, text)
        assert path.read_text() == text
    assert names(tmp_path / "new") == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_write_text_that_fails_leaves_the_old_file(call, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("no space left")

    files.write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        files.write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@FORKS
@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_write_text_that_is_killed_leaves_the_old_file(call, tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    killed_at(call, lambda: files.write_text(tmp_path / "a.txt", "new"))
    assert (tmp_path / "a.txt").read_text() == "old"


@FORKS
@pytest.mark.parametrize("times", [1, 2, 3])
def test_new_directory_that_is_killed_leaves_the_old_one(times, artifact):
    killed_at("replace", lambda: make(artifact, "new"), times=times)
    files.verify(artifact, KIND)
    assert (artifact / "a.txt").read_text() == "old"


def test_new_directory_appears_after_the_block(tmp_path):
    with files.new_directory(tmp_path / "artifact") as work:
        files.write_text(work / "a.txt", "one")
        assert not (tmp_path / "artifact").exists()
    assert names(tmp_path) == ["artifact"]
    assert names(tmp_path / "artifact") == ["a.txt"]
    assert (tmp_path / "artifact").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_new_directory_that_fails_leaves_what_was_there(failure, artifact):
    def fail(path):
        with files.new_directory(path) as work:
            files.write_text(work / "a.txt", "half")
            raise failure

    for path in (artifact, artifact.with_name("other")):
        with pytest.raises(failure):
            fail(path)
    assert names(artifact.parent) == ["artifact"]
    assert (artifact / "a.txt").read_text() == "old"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_new_directory_replaces_all_files(can_exchange, tmp_path, monkeypatch):
    if not can_exchange:
        monkeypatch.setattr(files.replacing, "_exchange", lambda work, path: False)
    for left_over in ("artifact/left over", "artifact"):
        files.write_text(tmp_path / left_over, "old")
        make(tmp_path / "artifact")
        assert names(tmp_path) == ["artifact"]
        assert names(tmp_path / "artifact") == ["a.txt", "below.npy", "manifest.json"]
        files.delete_directory(tmp_path / "artifact")
        files.delete_directory(tmp_path / "artifact")
        assert names(tmp_path) == []


def test_new_directory_never_moves_the_old_one_away_first(artifact, monkeypatch):
    def replace(source, target, _replace=os.replace):
        assert target == artifact or source != artifact
        _replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    make(artifact, "new")
    assert (artifact / "a.txt").read_text() == "new"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_new_directory_by_many_at_once(can_exchange, tmp_path, monkeypatch):
    def work(content):
        for _ in range(20):
            make(tmp_path / "artifact", content)

    if not can_exchange:
        monkeypatch.setattr(files.replacing, "_exchange", lambda work, path: False)
    assert in_threads(work, "one", "two", "six", "ten") == [None] * 4
    assert names(tmp_path) == ["artifact"]
    files.verify(tmp_path / "artifact", KIND)


def test_new_directory_removes_what_was_abandoned(tmp_path):
    ages_h = {".artifact.old_old_": 25, ".artifact.at_work_": 23, ".other.old_old_": 25}
    for name, age_h in ages_h.items():
        files.write_text(tmp_path / name / "half.bin", "half")
        os.utime(tmp_path / name, (time.time() - age_h * 3600,) * 2)
    make(tmp_path / "artifact")
    assert names(tmp_path) == [".artifact.at_work_", ".other.old_old_", "artifact"]


def test_delete_unfinished_removes_temporary_names_only(tmp_path):
    kept = [".a", ".a.short", ".a.UPPERCASE", "a.abcdefgh", ".other.abcdefgh"]
    for name in (".a.abcdefgh", ".a.x_y_z_12", *kept):
        files.write_text(tmp_path / name / "half.bin", "half")
    files.write_text(tmp_path / ".a.aaaaaaaa", "half")
    files.delete_unfinished(tmp_path, "a")
    assert names(tmp_path) == sorted(kept)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == sorted(kept[:-1])
    files.delete_unfinished(tmp_path / "none")


def test_delete_unfinished_continues_after_a_failure(tmp_path, monkeypatch):
    def rmtree(path, _rmtree=files.replacing.shutil.rmtree, **options):
        if path.name == ".a.abcdefgh":
            raise PermissionError(path)
        _rmtree(path, **options)

    for name in (".a.abcdefgh", ".b.abcdefgh"):
        files.write_text(tmp_path / name / "half.bin", "half")
    monkeypatch.setattr(files.replacing.shutil, "rmtree", rmtree)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == [".a.abcdefgh"]


def test_delete_spares_one_file_and_needs_no_folder(tmp_path):
    for name in ("a.log", "b.log", "c.txt"):
        files.write_text(tmp_path / name, name)
    files.delete(tmp_path, "*.log", keep="b.log")
    files.delete(tmp_path / "none", "*")
    assert names(tmp_path) == ["b.log", "c.txt"]


@FORKS
@pytest.mark.parametrize("call", ["replace", "unlink", "rmdir"])
def test_delete_directory_that_is_killed_leaves_no_part(call, artifact):
    killed_at(call, lambda: files.delete_directory(artifact))
    if artifact.exists():
        files.verify(artifact, KIND)
    files.delete_unfinished(artifact.parent)
    assert names(artifact.parent) in ([], ["artifact"])


def test_copy_directory_gives_the_same_artifact(artifact, tmp_path):
    files.copy_directory(artifact, tmp_path / "there" / "copy")
    assert files.verify(tmp_path / "there" / "copy", KIND) == files.verify(artifact, KIND)


@FORKS
@pytest.mark.parametrize("call", ["symlink", "replace"])
def test_link_directory_that_is_killed_keeps_the_old_target(call, artifact, tmp_path):
    newer, link = make(tmp_path / "newer", "new"), tmp_path / "serving" / "current"
    files.link_directory(artifact, link)
    killed_at(call, lambda: files.link_directory(newer, link))
    assert (link / "a.txt").read_text() == "old"
    files.link_directory(newer, link)
    (tmp_path / "moved").mkdir()
    for name in ("artifact", "newer", "serving"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert (tmp_path / "moved" / "serving" / "current" / "a.txt").read_text() == "new"


def test_save_chunks_can_be_continued(tmp_path):
    def broken():
        yield b"first"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.save_chunks(tmp_path / "part", broken())
    files.save_chunks(tmp_path / "part", [b" second"], append=True)
    files.move_file(tmp_path / "part", tmp_path / "there" / "whole")
    assert (tmp_path / "there" / "whole").read_bytes() == b"first second"
    assert names(tmp_path) == ["there"]


@pytest.mark.parametrize("sizes", [(3, 2, 1), (6,), (0, 6)])
def test_save_blocks_writes_the_same_bytes_as_save_array(tmp_path, sizes):
    whole = np.arange(12, dtype=np.float32).reshape(6, 2)
    blocks = np.split(whole.astype(np.float64), np.cumsum(sizes)[:-1])
    files.save_array(tmp_path / "whole.npy", whole)
    files.save_blocks(tmp_path / "blocks.npy", iter(blocks), whole.shape, np.float32)
    assert (tmp_path / "blocks.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@FORKS
def test_save_tensors_on_a_full_disk_is_an_os_error(tmp_path):
    import torch

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1000)})
        except OSError as error:
            os._exit(7 if error.errno == errno.EFBIG else 1)

    assert in_fork(write) == 7


def test_create_json_of_many_succeeds_once(tmp_path):
    path = tmp_path / "there" / "a.json"
    made = in_threads(lambda by: (files.create_json(path, by), by), *range(8))
    assert sorted(is_first for is_first, _ in made) == [False] * 7 + [True]
    assert (True, files.read_json(path)) in made
    assert names(path.parent) == ["a.json"]


@FORKS
@pytest.mark.parametrize("call", ["link", "fsync", "replace"])
def test_create_json_that_is_killed_can_be_repeated(call, tmp_path):
    killed_at(call, lambda: files.create_json(tmp_path / "a.json", 1))
    assert not (tmp_path / "a.json").exists()
    assert files.create_json(tmp_path / "a.json", 2)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == ["a.json"]


def test_create_json_without_links_is_a_copy(tmp_path, monkeypatch):
    def link(*args):
        raise OSError(errno.EOPNOTSUPP, "SMB")

    monkeypatch.setattr(os, "link", link)
    assert files.create_json(tmp_path / "a.json", 1)
    assert not files.create_json(tmp_path / "a.json", 2)
    assert files.read_json(tmp_path / "a.json") == 1


def test_write_json_refuses_numbers_that_are_not_finite(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_sha256_of_json_ignores_the_order_of_keys():
    assert files.sha256_of_json({"a": 1, "b": [2]}) == files.sha256_of_json({"b": [2], "a": 1})
    assert files.sha256_of_json({"a": 1}) != files.sha256_of_json({"a": 2})


def test_exclusive_is_refused_while_another_holds_it(tmp_path):
    lock = tmp_path / "lock"
    with files.exclusive(lock), pytest.raises(UnavailableError), files.exclusive(lock):
        pass
    with files.exclusive(lock):
        pass


def test_exclusive_holds_the_lock_of_the_name_where_its_folder_is_removed_meanwhile(tmp_path):
    lock = tmp_path / "run" / "lock"
    held, release = threading.Event(), threading.Event()

    def wait():
        with files.exclusive(lock, wait_s=60):
            held.set()
            assert release.wait(60)

    waiting = threading.Thread(target=wait)
    with files.exclusive(lock):
        waiting.start()
        # Both have the file open: the other waits for this lock.
        while [each.path for each in psutil.Process().open_files()].count(str(lock)) < 2:
            assert waiting.is_alive()
        files.delete_directory(lock.parent)
    assert held.wait(60)
    assert files.is_held(lock)
    release.set()
    waiting.join(60)
    assert not files.is_held(lock)


@pytest.mark.parametrize(
    ("error_number", "failures", "calls"),
    [(errno.ESTALE, 1, 2), (errno.ESTALE, 9, 2), (errno.EACCES, 9, 1)],
)
def test_again_if_stale_tries_once_more(error_number, failures, calls):
    made = []

    @files.again_if_stale
    def read(value):
        made.append(value)
        if len(made) <= failures:
            raise OSError(error_number, os.strerror(error_number))
        return value

    with contextlib.nullcontext() if failures < calls else pytest.raises(OSError, match="Errno"):
        assert read(7) == 7
    assert len(made) == calls


def test_write_manifest_lists_every_file_of_every_folder(tmp_path):
    with files.new_directory(tmp_path / "artifact") as work:
        files.write_text(work / "a.txt", "one")
        files.write_text(work / "below" / "b.txt", "two")
        written = files.write_manifest(work, KIND, inputs={}, facts={"rows": 2, "dataset": "x"})
    manifest = files.verify(tmp_path / "artifact", KIND)
    assert manifest == written
    assert set(manifest.files) == {"a.txt", "below/b.txt"}
    digest = files.sha256_of_file(tmp_path / "artifact" / "a.txt")
    assert manifest.files["a.txt"].model_dump() == {"bytes": 3, "sha256": digest}
    assert (manifest.number("rows"), manifest.text("dataset")) == (2, "x")
    for read, fact in ((manifest.number, "dataset"), (manifest.text, "none")):
        with pytest.raises(CorruptError, match=fact):
            read(fact)


def test_manifest_digest_depends_on_content_but_not_on_facts(tmp_path):
    digest = files.read_manifest(make(tmp_path / "a"), KIND).sha256
    assert files.read_manifest(make(tmp_path / "b", seconds=3), KIND).sha256 == digest
    assert files.read_manifest(make(tmp_path / "c", "other"), KIND).sha256 != digest


def test_read_manifest_names_a_cut_or_missing_file(artifact):
    path = artifact / "below.npy"
    path.write_bytes(path.read_bytes()[:-1])
    for check in (files.read_manifest, files.verify):
        with pytest.raises(CorruptError, match=r"below\.npy"):
            check(artifact, KIND)
    path.unlink()
    with pytest.raises(CorruptError, match=r"below\.npy"):
        files.read_manifest(artifact, KIND)


@pytest.mark.parametrize("part", ["inputs", "sha256", "a.txt"])
def test_verify_finds_what_was_changed_by_its_digest(part, artifact):
    if part == "a.txt":
        (artifact / part).write_text("new")
    else:
        manifest = files.read_json(artifact / "manifest.json")
        manifest[part] = {"from": "1" * 64} if part == "inputs" else "1" * 64
        files.write_json(artifact / "manifest.json", manifest)
    with pytest.raises(CorruptError, match=r"a\.txt" if part == "a.txt" else r"manifest\.json"):
        files.verify(artifact, KIND)


def test_read_manifest_refuses_another_kind_and_none(artifact, tmp_path):
    with pytest.raises(CorruptError, match="a RawDataset where a PreparedGraph belongs"):
        files.read_manifest(artifact, "PreparedGraph")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match="no RawDataset here"):
            files.read_manifest(folder, KIND)
    with pytest.raises(NotFoundError, match="none"):
        files.read_json(tmp_path / "none")


@pytest.mark.fault("F35")
@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "below/../../secret", ".."])
def test_read_manifest_refuses_files_elsewhere(name, artifact, tmp_path):
    files.write_text(tmp_path / "secret", "one")
    manifest = files.read_json(artifact / "manifest.json")
    digest = files.sha256_of_file(tmp_path / "secret")
    manifest["files"][name] = {"bytes": 3, "sha256": digest}
    files.write_json(artifact / "manifest.json", manifest)
    with pytest.raises(CorruptError, match="not a manifest of citeflow"):
        files.read_manifest(artifact, KIND)


@pytest.mark.fault("F35")
def test_read_manifest_refuses_a_link(artifact, tmp_path):
    (artifact / "a.txt").rename(tmp_path / "elsewhere")
    (artifact / "a.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptError, match=r"a\.txt"):
        files.read_manifest(artifact, KIND)


WRONG_FIELDS = [{"files": []}, {"inputs": []}, {"facts": ""}, {"sha256": 7}]
WRONG_FIELDS += [{"files": {"a.txt": entry}} for entry in (None, {"bytes": 3})]
EMPTY = {"kind": KIND, "files": {}, "inputs": {}, "facts": {}, "sha256": ""}
OTHER_JSON = [[], "text", None, {}, {"kind": KIND}, *(EMPTY | fields for fields in WRONG_FIELDS)]
DAMAGED_JSON = [b"", b'{"kind": "Raw', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.fault("F35")
@pytest.mark.parametrize("content", [*DAMAGED_JSON, *map(json.dumps, OTHER_JSON)])
def test_read_manifest_names_a_file_that_is_none(content, artifact):
    is_damaged = isinstance(content, bytes)
    (artifact / "manifest.json").write_bytes(content if is_damaged else content.encode())
    with pytest.raises(CorruptError, match=r"manifest\.json" if is_damaged else None):
        files.read_manifest(artifact, KIND)
