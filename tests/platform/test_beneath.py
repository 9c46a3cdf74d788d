"""Files below a folder: opened as they are, and never through a link."""

import os

import pytest

from citeflow.errors import CorruptError
from citeflow.platform.beneath import check_plain, leads_beneath, open_beneath


@pytest.fixture
def root(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "file").write_text("secret")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("own")
    return root


ODD = {
    "a link": lambda root: (root / "x").symlink_to(root / "folder" / "file"),
    "a link out": lambda root: (root / "x").symlink_to(root.parent / "secret"),
    "a pipe": lambda root: os.mkfifo(root / "x"),
    "a folder": lambda root: (root / "x").mkdir(),
    "nothing": lambda root: None,
}


def test_open_beneath_opens_a_plain_file(root):
    with open_beneath(root, root / "folder" / "file") as file:
        assert file.read() == b"own"


@pytest.mark.parametrize("what", ODD)
def test_open_beneath_opens_nothing_else(root, what):
    ODD[what](root)
    with pytest.raises(FileNotFoundError):
        open_beneath(root, root / "x")


def test_open_beneath_follows_no_folder(root):
    (root / "link").symlink_to(root.parent / "others")
    with pytest.raises(FileNotFoundError):
        open_beneath(root, root / "link" / "file")


@pytest.mark.parametrize("path", ["../secret", "folder/../../secret", "a\0b"])
def test_open_beneath_takes_no_path_that_is_none(root, path):
    with pytest.raises(ValueError, match=r"secret|null"):
        open_beneath(root, root / path)


def test_leads_beneath_follows_links(root):
    (root / "in").symlink_to("folder")
    (root / "out").symlink_to(root.parent)
    led = {name: leads_beneath(root, root / name) for name in ("in", "out", "folder", "missing")}
    assert led == {"in": True, "out": False, "folder": True, "missing": True}


@pytest.mark.parametrize("what", ["a link", "a link out", "a pipe"])
def test_check_plain_finds_what_is_none(root, what):
    check_plain(root, root)
    ODD[what](root)
    with pytest.raises(CorruptError, match="no plain file: 'x'"):
        check_plain(root, root)
