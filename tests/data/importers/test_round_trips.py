"""Every format, packed in every way, is read as the same graph as our own format."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile

import foreign_formats as foreign
import pytest

from citeflow.config import Config, DataConfig
from citeflow.data.datasets import download_dataset, read_raw

ONE_FILE = [
    "edge list with a header", "edge list without", "SNAP", "GraphML", "GEXF", "Pajek", "OpenAlex",
    "Semantic Scholar API", "DBLP v10", "DBLP v12", "DBLP v13", "BibTeX", "arXiv references",
    "Parquet", "NPZ", "NPZ, CSC", "HDF5", "reference list", "reference list of Python",
    "Parquet, cells of references",
]  # fmt: skip
BINARY = ("Parquet", "Parquet, cells of references", "NPZ", "NPZ, CSC", "HDF5")


def zipped(folder, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                opened.write(path, f"my data/{path.relative_to(folder)}")
    return target


def tarred(folder, target):
    with tarfile.open(target, "w:gz") as opened:
        opened.add(folder, "data")
    return target


def compressed(folder, compress, suffix):
    path = next(path for path in folder.iterdir() if path.is_file())
    target = path.with_name(f"{path.name}{suffix}")
    target.write_bytes(compress(path.read_bytes()))
    path.unlink()
    return target


def graph_of(source, root):
    raw = download_dataset(str(source), data_root=root, config=Config())
    return read_raw(raw, DataConfig(text_dim=4))


def assert_same(graph, name):
    ids, days, titles = foreign.expected(name)
    found = [str(each) for each in graph.id_N]
    assert sorted(found) == sorted(ids)
    row = {each: at for at, each in enumerate(found)}
    edges = sorted(zip(*(graph.edge_2E.tolist()), strict=True))
    assert edges == sorted((row[ids[a]], row[ids[b]]) for a, b in foreign.EDGES)
    assert (graph.day_N is None) == (days is None)
    if days:
        assert [graph.day_N[row[each]] for each in ids] == days
    assert (graph.title_N is None) == (titles is None)
    if titles:
        assert [graph.title_N[row[each]] for each in ids] == titles
    assert graph.counts == {"unknown": 0}


@pytest.mark.parametrize("name", foreign.FORMATS)
def test_format_is_read_equal_from_folder_and_archives(name, tmp_path):
    folder = foreign.write(tmp_path / "in", name)
    root = tmp_path / "root"
    for source in (
        folder,
        zipped(folder, tmp_path / "a.zip"),
        tarred(folder, tmp_path / "a.tar.gz"),
    ):
        assert_same(graph_of(source, root), name)


@pytest.mark.parametrize("name", ONE_FILE)
def test_format_is_read_equal_from_a_file_packed_or_not(name, tmp_path):
    folder = foreign.write(tmp_path / "in", name)
    path = next(folder.iterdir())
    # A name says nothing: content decides.
    other = tmp_path / "download"
    shutil.copy(path, other)
    for source in (path, other):
        assert_same(graph_of(source, tmp_path / "root"), name)
    if name in BINARY:
        return
    for compress, suffix in (
        (gzip.compress, ".gz"),
        (bz2.compress, ".bz2"),
        (lzma.compress, ".xz"),
    ):
        packed = tmp_path / suffix
        shutil.copytree(folder, packed)
        assert_same(graph_of(compressed(packed, compress, suffix), tmp_path / "root"), name)


@pytest.mark.parametrize("name", [name for name in ONE_FILE if name not in BINARY])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_text_in_utf_16_is_read_equal(name, encoding, tmp_path):
    path = next(foreign.write(tmp_path / "in", name).iterdir())
    text = path.read_text("utf-8").replace("utf-8", "utf-16").replace("UTF-8", "UTF-16")
    path.write_text(text, encoding)
    assert_same(graph_of(path, tmp_path / "root"), name)


def test_our_own_format_gives_the_graph_that_all_are_compared_with(tmp_path):
    name = "OpenAlex"
    foreign.write_native(tmp_path, foreign.FORMATS[name][1], dates=foreign.FORMATS[name][2])
    assert_same(graph_of(tmp_path, tmp_path / "root"), name)


def test_same_source_is_imported_once(tmp_path, capsys):
    folder = foreign.write(tmp_path / "in", "OpenAlex")
    raw = download_dataset(str(folder), data_root=tmp_path / "root", config=Config())
    capsys.readouterr()
    assert download_dataset(str(folder), data_root=tmp_path / "root", config=Config()) == raw
    assert "papers=" not in capsys.readouterr().err
