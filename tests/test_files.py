import contextlib
import itertools
import os
import signal
import threading

import numpy as np
import pytest

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError, UnavailableError

KIND = "RawDataset"
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 fears for the other threads' locks


def make(folder, content="one", **facts):
    """Write a noun of one file."""
    with files.new_directory(folder) as work:
        files.write_text(work / "a.txt", content)
        files.save_array(work / "deep.npy", np.arange(10))
        files.write_manifest(work, KIND, inputs={"from": "0" * 64}, facts=facts)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_at(call, work, *, times=1):
    """Do some work in a process of its own that is killed when it calls a function of `os` for the so-many-th time."""
    calls, real = itertools.count(1), getattr(os, call)

    def kill_or_call(*args):
        if next(calls) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    child = os.fork()
    if child == 0:
        setattr(os, call, kill_or_call)
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


class BrokenError(Exception):
    """What goes wrong in the middle."""


def test_a_file_is_replaced_with_its_folder_made(tmp_path):
    for text in ("one", "two"):
        files.write_text(tmp_path / "new" / "a.txt", text)
        assert (tmp_path / "new" / "a.txt").read_text() == text
    assert names(tmp_path / "new") == ["a.txt"]


def test_others_may_read_what_was_written(tmp_path):
    make(tmp_path / "noun")
    files.write_text(tmp_path / "a.txt", "one")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "noun").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(call, tmp_path, monkeypatch):
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
def test_a_write_that_is_killed_leaves_the_old_file_whole(call, tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    killed_at(call, lambda: files.write_text(tmp_path / "a.txt", "new"))
    assert (tmp_path / "a.txt").read_text() == "old"


@FORKS
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_directory_whose_making_is_killed_leaves_the_old_one_whole(times, tmp_path):
    make(tmp_path / "noun", "old")
    killed_at("replace", lambda: make(tmp_path / "noun", "new"), times=times)
    files.verify(tmp_path / "noun", KIND)
    assert (tmp_path / "noun" / "a.txt").read_text() == "old"


def test_a_directory_appears_whole_at_the_end_of_the_block(tmp_path):
    with files.new_directory(tmp_path / "noun") as work:
        files.write_text(work / "a.txt", "one")
        assert not (tmp_path / "noun").exists()
    assert names(tmp_path) == ["noun"]
    assert names(tmp_path / "noun") == ["a.txt"]


@pytest.mark.parametrize("failure", [BrokenError, KeyboardInterrupt])
def test_a_failure_within_the_block_leaves_nothing(failure, tmp_path):
    def fail():
        with files.new_directory(tmp_path / "noun") as work:
            files.write_text(work / "a.txt", "half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert names(tmp_path) == []


def test_a_failure_within_the_block_leaves_the_old_directory(tmp_path):
    make(tmp_path / "noun", "old")
    with contextlib.suppress(BrokenError), files.new_directory(tmp_path / "noun") as work:
        files.write_text(work / "a.txt", "new")
        raise BrokenError
    assert names(tmp_path) == ["noun"]
    assert (tmp_path / "noun" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_replaces_the_old_one_with_all_its_files(can_exchange, tmp_path, monkeypatch):
    if not can_exchange:
        monkeypatch.setattr(files.replacing, "_exchange", lambda work, path: False)
    files.write_text(tmp_path / "noun" / "left over", "old")
    make(tmp_path / "noun", "new")
    assert names(tmp_path) == ["noun"]
    assert names(tmp_path / "noun") == ["a.txt", "deep.npy", "manifest.json"]


def test_an_old_directory_is_never_missing_while_it_is_replaced(tmp_path, monkeypatch):
    def replace(source, target, _replace=os.replace):
        assert target == noun or source != noun, "the old directory was moved away first"
        _replace(source, target)

    noun = make(tmp_path / "noun", "old")
    monkeypatch.setattr(os, "replace", replace)
    make(noun, "new")
    assert (noun / "a.txt").read_text() == "new"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_many_that_make_the_same_directory_all_succeed(can_exchange, tmp_path, monkeypatch):
    def work(content):
        for _ in range(20):
            try:
                make(tmp_path / "noun", content)
            except Exception as error:  # an assertion in a thread would go unnoticed
                failures.append(error)

    if not can_exchange:
        monkeypatch.setattr(files.replacing, "_exchange", lambda work, path: False)
    failures = []
    threads = [threading.Thread(target=work, args=(content,)) for content in ("one", "two", "six", "ten")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert names(tmp_path) == ["noun"]
    files.verify(tmp_path / "noun", KIND)


def test_a_file_in_the_way_of_a_directory_is_replaced(tmp_path):
    files.write_text(tmp_path / "noun", "a file")
    make(tmp_path / "noun")
    assert names(tmp_path) == ["noun"]
    files.verify(tmp_path / "noun", KIND)


def test_a_copied_directory_is_the_same_noun(tmp_path):
    noun = make(tmp_path / "noun")
    files.copy_directory(noun, tmp_path / "there" / "copy")
    assert files.verify(tmp_path / "there" / "copy", KIND) == files.verify(noun, KIND)


def test_the_manifest_lists_every_file_of_every_folder(tmp_path):
    with files.new_directory(tmp_path / "noun") as work:
        files.write_text(work / "a.txt", "one")
        files.write_text(work / "below" / "b.txt", "two")
        digest = files.write_manifest(work, KIND, inputs={}, facts={"rows": 2})
    manifest = files.verify(tmp_path / "noun", KIND)
    assert set(manifest["files"]) == {"a.txt", "below/b.txt"}
    assert manifest["files"]["a.txt"] == {"bytes": 3, "sha256": files.sha256_of_file(tmp_path / "noun" / "a.txt")}
    assert (manifest["sha256"], manifest["facts"]) == (digest, {"rows": 2})


def test_the_digest_depends_on_content_and_inputs_but_not_on_facts(tmp_path):
    digest = files.read_manifest(make(tmp_path / "a"), KIND)["sha256"]
    assert files.read_manifest(make(tmp_path / "b", seconds=3), KIND)["sha256"] == digest
    assert files.read_manifest(make(tmp_path / "c", "other"), KIND)["sha256"] != digest


@pytest.mark.parametrize("check", [files.read_manifest, files.verify])
def test_a_file_that_was_cut_or_is_missing_is_named(check, tmp_path):
    cut, missing = make(tmp_path / "cut"), make(tmp_path / "missing")
    (cut / "deep.npy").write_bytes((cut / "deep.npy").read_bytes()[:-1])
    (missing / "a.txt").unlink()
    for folder, name in ((cut, "deep.npy"), (missing, "a.txt")):
        with pytest.raises(CorruptError, match=name):
            check(folder, KIND)


def test_a_changed_file_of_the_same_size_is_found_by_its_digest(tmp_path):
    noun = make(tmp_path / "noun", "one")
    (noun / "a.txt").write_text("two")
    files.read_manifest(noun, KIND)
    with pytest.raises(CorruptError, match=r"a\.txt"):
        files.verify(noun, KIND)


def test_another_noun_is_refused(tmp_path):
    with pytest.raises(CorruptError, match="a RawDataset where a PreparedGraph belongs"):
        files.read_manifest(make(tmp_path / "noun"), "PreparedGraph")


def test_a_folder_without_a_manifest_is_not_there(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotFoundError, match="no RawDataset here"):
            files.read_manifest(folder, KIND)


@pytest.mark.parametrize("content", [b"", b'{"kind": "Raw', b"\xff\xfe"])
def test_a_damaged_json_file_is_told_by_name(content, tmp_path):
    noun = make(tmp_path / "noun")
    (noun / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        files.read_manifest(noun, KIND)
    with pytest.raises(NotFoundError, match="none"):
        files.read_json(tmp_path / "none")


def test_a_digest_of_plain_values_ignores_the_order_of_keys():
    assert files.sha256_of_json({"a": 1, "b": [2]}) == files.sha256_of_json({"b": [2], "a": 1})
    assert files.sha256_of_json({"a": 1}) != files.sha256_of_json({"a": 2})


def test_json_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_lock_is_refused_while_another_holds_it_and_free_after(tmp_path):
    with files.exclusive(tmp_path / "lock"), pytest.raises(UnavailableError), files.exclusive(tmp_path / "lock"):
        pass
    with files.exclusive(tmp_path / "lock"):
        pass


def test_deleting_spares_what_is_to_be_kept_and_needs_no_folder(tmp_path):
    for name in ("a.log", "b.log", "c.txt"):
        files.write_text(tmp_path / name, name)
    files.delete(tmp_path, "*.log", keep="b.log")
    files.delete(tmp_path / "none", "*")
    assert names(tmp_path) == ["b.log", "c.txt"]


def test_an_unfinished_download_can_be_continued(tmp_path):
    def broken():
        yield b"first"
        raise BrokenError

    with pytest.raises(BrokenError):
        files.save_chunks(tmp_path / "part", broken())
    files.save_chunks(tmp_path / "part", [b" second"], append=True)
    files.move_file(tmp_path / "part", tmp_path / "there" / "whole")
    assert (tmp_path / "there" / "whole").read_bytes() == b"first second"
    assert names(tmp_path) == ["there"]


@pytest.mark.parametrize("sizes", [(3, 2, 1), (6,), (0, 6)])
def test_an_array_that_comes_in_blocks_is_the_same_file_as_one_saved_whole(tmp_path, sizes):
    whole = np.arange(12, dtype=np.float32).reshape(6, 2)
    blocks = np.split(whole.astype(np.float64), np.cumsum(sizes)[:-1])
    files.save_array(tmp_path / "whole.npy", whole)
    files.save_blocks(tmp_path / "blocks.npy", iter(blocks), whole.shape, np.float32)
    assert (tmp_path / "blocks.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
