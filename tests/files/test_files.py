import contextlib
import errno
import itertools
import os
import signal
import threading
import time

import numpy as np
import pytest

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError, UnavailableError

KIND = "RawDataset"
FORKS = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 fears for the other threads' locks


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

    def kill_or_call(*args, **kwargs):
        if next(calls) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

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
    threads = [
        threading.Thread(target=work, args=(content,)) for content in ("one", "two", "six", "ten")
    ]
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
        digest = files.write_manifest(work, KIND, inputs={}, facts={"rows": 2}).sha256
    manifest = files.verify(tmp_path / "noun", KIND)
    assert set(manifest.files) == {"a.txt", "below/b.txt"}
    assert manifest.files["a.txt"].model_dump() == {
        "bytes": 3,
        "sha256": files.sha256_of_file(tmp_path / "noun" / "a.txt"),
    }
    assert (manifest.sha256, manifest.facts) == (digest, {"rows": 2})


def test_the_digest_depends_on_content_and_inputs_but_not_on_facts(tmp_path):
    digest = files.read_manifest(make(tmp_path / "a"), KIND).sha256
    assert files.read_manifest(make(tmp_path / "b", seconds=3), KIND).sha256 == digest
    assert files.read_manifest(make(tmp_path / "c", "other"), KIND).sha256 != digest


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


@pytest.mark.parametrize("content", [b"", b'{"kind": "Raw', b"\xff\xfe", b"[" * 100_000])
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
    with (
        files.exclusive(tmp_path / "lock"),
        pytest.raises(UnavailableError),
        files.exclusive(tmp_path / "lock"),
    ):
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


def test_a_file_is_created_once_by_whoever_comes_first(tmp_path):
    assert files.create_json(tmp_path / "there" / "a.json", {"by": 1})
    assert not files.create_json(tmp_path / "there" / "a.json", {"by": 2})
    assert files.read_json(tmp_path / "there" / "a.json") == {"by": 1}
    assert names(tmp_path / "there") == ["a.json"]


def test_of_many_that_create_a_file_one_does(tmp_path):
    made = []
    threads = [
        threading.Thread(
            target=lambda by=by: made.append((files.create_json(tmp_path / "a.json", by), by))
        )
        for by in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(is_first for is_first, _ in made) == [False] * 7 + [True]
    assert (True, files.read_json(tmp_path / "a.json")) in made
    assert names(tmp_path) == ["a.json"]


@FORKS
@pytest.mark.parametrize("call", ["link", "fsync", "replace"])
def test_a_file_whose_creation_is_killed_is_not_there_and_can_be_created(call, tmp_path):
    killed_at(call, lambda: files.create_json(tmp_path / "a.json", 1))
    assert not (tmp_path / "a.json").exists()
    assert files.create_json(tmp_path / "a.json", 2)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == ["a.json"]


def test_a_directory_is_deleted_with_all_in_it_and_none_is_no_error(tmp_path):
    make(tmp_path / "noun")
    files.delete_directory(tmp_path / "noun")
    files.delete_directory(tmp_path / "noun")
    assert names(tmp_path) == []


@FORKS
@pytest.mark.parametrize("call", ["replace", "unlink", "rmdir"])
def test_a_directory_whose_deletion_is_killed_is_whole_or_not_there(call, tmp_path):
    noun = make(tmp_path / "noun")
    killed_at(call, lambda: files.delete_directory(noun))
    if (tmp_path / "noun").exists():
        files.verify(tmp_path / "noun", KIND)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) in ([], ["noun"])


def test_what_a_killed_process_left_is_swept_by_name(tmp_path):
    kept = [".noun", ".noun.short", ".noun.UPPERCASE", "noun.abcdefgh", ".other.abcdefgh"]
    for name in (".noun.abcdefgh", ".noun.x_y_z_12", *kept):
        files.write_text(tmp_path / name / "half.bin", "half")
    files.write_text(tmp_path / ".noun.aaaaaaaa", "half")
    files.delete_unfinished(tmp_path, "noun")
    assert names(tmp_path) == sorted(kept)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == sorted(kept[:-1])
    files.delete_unfinished(tmp_path / "none")


def test_a_directory_that_is_made_sweeps_what_was_abandoned_and_spares_what_may_be_at_work(
    tmp_path,
):
    for name, age_s in (
        (".noun.old_old_", 25 * 3600),
        (".noun.at_work_", 23 * 3600),
        (".other.old_old_", 25 * 3600),
    ):
        files.write_text(tmp_path / name / "half.bin", "half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    make(tmp_path / "noun")
    assert names(tmp_path) == [".noun.at_work_", ".other.old_old_", "noun"]


def test_sweeping_goes_on_where_something_can_not_be_removed(tmp_path, monkeypatch):
    for name in (".a.abcdefgh", ".b.abcdefgh"):
        files.write_text(tmp_path / name / "half.bin", "half")
    real = files.replacing.shutil.rmtree

    def rmtree(path, **how):
        if path.name == ".a.abcdefgh":
            raise PermissionError(path)
        real(path, **how)

    monkeypatch.setattr(files.replacing.shutil, "rmtree", rmtree)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == [".a.abcdefgh"]


def stale(times, real):
    """Fails as NFS does when the server no longer knows a file, so many times; and the calls that were made of it."""
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) <= times:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "a file")
        return real(*args, **kwargs)

    return call, calls


def test_a_reader_tries_a_stale_file_once_more_and_no_other_failure():
    read, calls = stale(1, lambda value: value)
    assert files.again_if_stale(read)(7) == 7
    assert len(calls) == 2
    read, calls = stale(9, None)
    with pytest.raises(OSError, match="Stale"):
        files.again_if_stale(read)()
    assert len(calls) == 2
    calls.clear()

    @files.again_if_stale
    def denied():
        calls.append(1)
        raise PermissionError(errno.EACCES, "denied")

    with pytest.raises(PermissionError):
        denied()
    assert len(calls) == 1


def test_names_of_a_folder_that_can_not_be_read_are_not_none(tmp_path):
    files.write_text(tmp_path / "a.txt", "one")
    assert files.names_in(tmp_path) == ["a.txt"]
    assert files.names_in(tmp_path / "none") == []
    with pytest.raises(NotADirectoryError):
        files.names_in(tmp_path / "a.txt")


ELSEWHERE = ["../secret", "/etc/hostname", "below/../../secret", ".."]
NO_MANIFESTS = [
    [],
    "text",
    None,
    {},
    {"kind": KIND},
    {"kind": KIND, "files": [], "inputs": {}, "facts": {}, "sha256": ""},
    {"kind": KIND, "files": {}, "inputs": [], "facts": {}, "sha256": ""},
    {"kind": KIND, "files": {}, "inputs": {}, "facts": "", "sha256": ""},
    {"kind": KIND, "files": {}, "inputs": {}, "facts": {}, "sha256": 7},
    {"kind": KIND, "files": {"a.txt": None}, "inputs": {}, "facts": {}, "sha256": ""},
    {"kind": KIND, "files": {"a.txt": {"bytes": 3}}, "inputs": {}, "facts": {}, "sha256": ""},
]


@pytest.mark.fault("F35")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_manifest_that_names_files_elsewhere_is_refused_before_one_is_looked_at(
    name, tmp_path, figure
):
    files.write_text(tmp_path / "secret", "one")
    noun = make(tmp_path / "noun")
    manifest = files.read_json(noun / "manifest.json")
    manifest.files[name] = {"bytes": 3, "sha256": files.sha256_of_file(tmp_path / "secret")}
    files.write_json(noun / "manifest.json", manifest)
    with pytest.raises(CorruptError, match="not a manifest of citeflow"):
        files.read_manifest(noun, KIND)
    figure(hostile_files=1, executed=0)


@pytest.mark.fault("F35")
def test_a_link_in_the_place_of_a_file_is_refused(tmp_path, figure):
    noun = make(tmp_path / "noun")
    (noun / "a.txt").rename(tmp_path / "elsewhere")
    (noun / "a.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptError, match=r"a\.txt"):
        files.read_manifest(noun, KIND)
    figure(hostile_files=1, executed=0)


@pytest.mark.fault("F35")
@pytest.mark.parametrize("value", NO_MANIFESTS)
def test_what_is_no_manifest_is_refused(value, tmp_path, figure):
    noun = make(tmp_path / "noun")
    files.write_json(noun / "manifest.json", value)
    with pytest.raises(CorruptError):
        files.read_manifest(noun, KIND)
    figure(hostile_files=1, executed=0)


@pytest.mark.parametrize("part", ["inputs", "sha256"])
def test_a_manifest_whose_words_were_changed_is_found_by_its_own_digest(part, tmp_path):
    noun = make(tmp_path / "noun")
    manifest = files.read_json(noun / "manifest.json")
    manifest[part] = {"from": "1" * 64} if part == "inputs" else "1" * 64
    files.write_json(noun / "manifest.json", manifest)
    with pytest.raises(CorruptError, match=r"manifest does not match its sha256: .*manifest\.json"):
        files.verify(noun, KIND)


@FORKS
def test_tensors_on_a_full_disk_are_a_failure_of_the_system_that_names_its_file(tmp_path):
    import resource

    import torch

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1000)})
        except OSError as error:
            os._exit(7 if error.errno == errno.EFBIG else 1)

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            write()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
