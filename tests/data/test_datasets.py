"""The verb download, from every place that a dataset can come from."""

import gzip
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_server import FaultServer, cut_after, page, serving, status
from ogb_archive import write_ogb, zip_folder

from citeflow import files
from citeflow.config import Config, DataConfig, SyntheticConfig
from citeflow.data import raw_store as raw_module
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.errors import ConfigError, CorruptError, DataError, NotFoundError, UnavailableError

CONFIG = Config(synthetic=SyntheticConfig(num_papers=200))
PAPERS = "id,year\n1,1999\n2,2000\n3,2001\n"
CITATIONS = "citing,cited\n2,1\n3,1\n3,2\n"


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "CITEFLOW_OGB_URL",
        "CITEFLOW_OGB_SHA256",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("citeflow.data.download.time.sleep", lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "papers.csv").write_text(PAPERS)
    (folder / "citations.csv.gz").write_bytes(gzip.compress(CITATIONS.encode()))
    (folder / "notes.txt").write_text("not part of the dataset")
    return folder


@pytest.fixture
def citation2(tmp_path: Path) -> Path:
    write_ogb(tmp_path / "citation-v2")
    return zip_folder(tmp_path / "citation-v2", tmp_path / "citation-v2.zip")


@pytest.fixture
def server(citation2: Path) -> Iterator[FaultServer]:
    with serving(citation2.read_bytes()) as running:
        yield running


def download(dataset: object, root: Path) -> Path:
    return download_dataset(str(dataset), data_root=root, config=CONFIG)


def state_of(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if ".downloads" not in path.parts
    }


def assert_nothing_stored(root: Path) -> None:
    assert [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_the_synthetic_graph_is_made_once_per_setting(root):
    raw = download("synthetic", root)
    before = state_of(raw)
    assert download("synthetic", root) == raw
    assert state_of(raw) == before
    assert len(read_raw(raw, DataConfig()).id_N) == 200
    other = download_dataset(
        "synthetic",
        data_root=root,
        config=Config(synthetic=SyntheticConfig(num_papers=200, seed=1)),
    )
    assert other != raw


def test_a_folder_is_copied_without_what_does_not_belong_to_it(root, folder):
    raw = download(folder, root)
    assert raw.parent == root / "raw"
    assert len(raw.name) == 16
    assert {path.name for path in raw.iterdir()} == {
        "papers.csv",
        "citations.csv.gz",
        "manifest.json",
    }
    assert files.verify(raw, "RawDataset").facts == {"dataset": "mine", "format": "folder"}
    assert read_raw(raw, DataConfig()).edge_2E.tolist() == [[1, 2, 2], [0, 0, 1]]


def test_the_same_content_is_stored_once_and_left_alone(root, folder, tmp_path):
    raw = download(folder, root)
    before = state_of(root)
    shutil.copytree(folder, tmp_path / "copy")
    assert download(tmp_path / "copy", root) == raw
    assert state_of(root) == before


def test_other_content_is_stored_elsewhere(root, folder):
    raw = download(folder, root)
    (folder / "papers.csv").write_text(PAPERS + "4,2002\n")
    assert download(folder, root) != raw
    np.save(folder / "features.npy", np.zeros((4, 2), np.float32))
    assert "features.npy" in {path.name for path in download(folder, root).iterdir()}
    assert len([path for path in (root / "raw").iterdir() if not path.name.startswith(".")]) == 3


def test_a_stored_dataset_that_was_damaged_is_made_again(root, folder):
    for dataset in (str(folder), "synthetic"):
        raw = download(dataset, root)
        table = next(raw.glob("papers.*"))
        table.write_bytes(table.read_bytes()[:-1])
        assert download(dataset, root) == raw
        files.verify(raw, "RawDataset")


def test_a_stored_dataset_that_was_changed_is_not_read(root, folder):
    raw = download(folder, root)
    (raw / "papers.csv").write_text(PAPERS.replace("1999", "1998"))
    with pytest.raises(CorruptError, match="sha256"):
        read_raw(raw, DataConfig())


@pytest.mark.parametrize("missing", ["papers.csv", "citations.csv.gz"])
def test_a_folder_without_a_table_is_refused_before_anything_is_written(root, folder, missing):
    (folder / missing).unlink()
    with pytest.raises(NotFoundError, match=f"no {missing.partition('.')[0]} table") as caught:
        download(folder, root)
    assert ".csv.gz" in caught.value.hint
    assert not root.exists()


def test_a_folder_with_the_same_table_twice_is_refused_before_anything_is_written(root, folder):
    (folder / "papers.csv.gz").write_bytes(gzip.compress(PAPERS.encode()))
    with pytest.raises(DataError, match=r"the same table twice: papers.csv, papers.csv.gz"):
        download(folder, root)
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("syntetic", "did you mean synthetic?"), ("ogbl-citation", "did you mean ogbl-citation2?")],
)
def test_an_unknown_name_gets_the_nearest_one(root, name, hint):
    with pytest.raises(NotFoundError, match=f"no such dataset: {name}") as caught:
        download(name, root)
    assert hint in caught.value.hint
    assert not root.exists()


@pytest.mark.parametrize("name", ["", "../nowhere/at/all"])
def test_a_name_like_no_other_is_not_found(root, name):
    with pytest.raises(NotFoundError, match="no such dataset") as caught:
        download(name, root)
    assert "did you mean" not in caught.value.hint


def test_ogbl_citation2_comes_from_its_server_once_and_is_read(root, server, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_URL", server.url)
    server.script = [cut_after(5_000), status(503), cut_after(3_000)]
    raw = download("ogbl-citation2", root)
    assert server.sent_bytes == len(server.content)
    num_requests = len(server.requests)
    assert download("ogbl-citation2", root) == raw
    assert len(server.requests) == num_requests
    facts = files.verify(raw, "RawDataset").facts
    assert (facts["dataset"], facts["format"], facts["url"]) == (
        "ogbl-citation2",
        "ogb",
        server.url,
    )
    assert len(facts["archive_sha256"]) == 64
    graph = read_raw(raw, DataConfig())
    assert graph.edge_2E.shape == (2, 300)
    assert graph.split is not None
    assert graph.split.test.negative_PK.shape == (7, 20)


def test_the_archive_does_not_stay_beside_what_came_out_of_it(root, server, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_URL", server.url)
    download("ogbl-citation2", root)
    kept = {path.name for path in (root / "raw" / ".downloads").rglob("*") if path.is_file()}
    assert kept == {"note.json", "download.lock"}


def test_ogbl_citation2_from_a_mirror_with_a_wrong_digest_is_refused(
    root, server, citation2, monkeypatch
):
    monkeypatch.setenv("CITEFLOW_OGB_URL", server.url)
    monkeypatch.setenv("CITEFLOW_OGB_SHA256", "0" * 64)
    with pytest.raises(DataError, match="wrong sha256"):
        download("ogbl-citation2", root)
    assert_nothing_stored(root)
    monkeypatch.setenv("CITEFLOW_OGB_SHA256", files.sha256_of_file(citation2).upper())
    assert download("ogbl-citation2", root).is_dir()


def test_a_digest_that_is_asked_for_later_is_not_taken_on_trust(root, server, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_URL", server.url)
    download("ogbl-citation2", root)
    monkeypatch.setenv("CITEFLOW_OGB_SHA256", "0" * 64)
    with pytest.raises(DataError, match="wrong sha256"):
        download("ogbl-citation2", root)


def test_the_same_ogb_archive_from_anywhere_is_stored_once(root, server, citation2, monkeypatch):
    raw = download(server.url, root)
    assert download(citation2.as_uri(), root) == raw
    assert download(citation2, root) == raw
    assert download(citation2.with_suffix(""), root) == raw


def test_a_citation_folder_is_not_taken_for_ogbl_citation2(root, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_URL", zip_folder(folder, tmp_path / "mine.zip").as_uri())
    with pytest.raises(DataError, match="not in the layout of ogbl-citation2"):
        download("ogbl-citation2", root)
    assert_nothing_stored(root)


def test_a_folder_comes_as_the_same_dataset_from_a_path_a_zip_and_a_tar(root, folder, tmp_path):
    packed = zip_folder(folder, tmp_path / "mine.zip")
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as file:
        for path in folder.iterdir():
            file.add(path, path.name)
    raw = download(folder, root)
    assert download(packed, root) == download(packed.as_uri(), root) == raw
    assert download(tmp_path / "mine.tar.gz", root) == raw


def test_an_archive_by_url_may_name_its_digest(root, folder, tmp_path):
    packed = zip_folder(folder, tmp_path / "mine.zip")
    with serving(packed.read_bytes()) as server:
        with pytest.raises(DataError, match="wrong sha256"):
            download(f"{server.url}#sha256={'0' * 64}", root)
        raw = download(f"{server.url}#sha256={files.sha256_of_file(packed)}", root)
    assert files.read_manifest(raw, "RawDataset").facts["dataset"] == "file"


def test_a_local_archive_that_changed_is_read_again(root, folder, tmp_path):
    url = zip_folder(folder, tmp_path / "mine.zip").as_uri()
    raw = download(url, root)
    (folder / "papers.csv").write_text(PAPERS + "4,2002\n")
    zip_folder(folder, tmp_path / "mine.zip")
    assert download(url, root) != raw


def test_an_archive_with_two_datasets_or_none_is_refused(root, folder, tmp_path):
    with tarfile.open(tmp_path / "two.tar", "w") as file:
        file.add(folder, "one")
        file.add(folder, "two")
    with pytest.raises(DataError, match="archive with 2 datasets"):
        download(tmp_path / "two.tar", root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="archive with 0 datasets"):
        download(zip_folder(tmp_path / "empty", tmp_path / "empty.zip"), root)
    assert_nothing_stored(root)


def test_a_login_page_in_place_of_the_archive_is_refused_and_forgotten(root, server, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_URL", server.url)
    server.script = [page]
    with pytest.raises(DataError, match=r"damaged archive: file\.zip") as caught:
        download("ogbl-citation2", root)
    assert "web page" in caught.value.hint
    assert_nothing_stored(root)
    assert download("ogbl-citation2", root).is_dir()


def test_a_server_that_does_not_answer_leaves_nothing_but_what_can_be_continued(
    root, server, monkeypatch
):
    monkeypatch.setenv("CITEFLOW_OGB_URL", server.url)
    server.script = [cut_after(4_000), *[status(503)] * 9]
    with pytest.raises(UnavailableError):
        download("ogbl-citation2", root)
    assert [path.name for path in (root / "raw").iterdir()] == [".downloads"]
    server.script = []
    download("ogbl-citation2", root)
    assert server.requests[-1][1]["Range"] == "bytes=4000-"


def test_a_note_about_a_dataset_that_is_gone_is_not_believed(root, server):
    raw = download(server.url, root)
    shutil.rmtree(raw)
    assert download(server.url, root) == raw
    assert (raw / "manifest.json").is_file()


def test_two_downloads_at_once_fetch_once(root, server):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(download(server.url, root))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(made) == 2
    assert made[0] == made[1]
    assert len(server.requests) == 1


def test_a_download_waits_for_another_process_but_not_for_ever(root, server, monkeypatch, capsys):
    monkeypatch.setattr(raw_module, "MAX_WAIT_MIN", 2)
    monkeypatch.setattr(raw_module, "LOG_EVERY_S", 0.01)
    lock = root / "raw" / ".downloads" / files.sha256_of_json(server.url)[:16] / "download.lock"
    with files.exclusive(lock), pytest.raises(UnavailableError, match="another process"):
        download(server.url, root)
    assert server.requests == []
    assert capsys.readouterr().err.count("waiting for another process") == 2
    download(server.url, root)


@pytest.mark.parametrize(
    "fragment", ["md5=" + "0" * 32, "sha256=00ff", "sha256=" + "g" * 64, "0" * 64]
)
def test_a_digest_that_cannot_be_checked_is_refused_before_anything_is_fetched(
    root, server, fragment
):
    with pytest.raises(ConfigError, match="not a digest"):
        download(f"{server.url}#{fragment}", root)
    assert server.requests == []
    assert not root.exists()


def test_a_digest_is_checked_whatever_its_case(root, server, citation2):
    with pytest.raises(DataError, match="wrong sha256"):
        download(f"{server.url}#SHA256={'A' * 64}", root)
    download(f"{server.url}#SHA256={files.sha256_of_file(citation2).upper()}", root)


def test_a_file_url_may_name_a_folder(root, folder):
    assert download(folder.as_uri(), root) == download(folder, root)
    with pytest.raises(ConfigError, match="a folder has no sha256"):
        download(f"{folder.as_uri()}#sha256={'0' * 64}", root)


def test_a_malformed_url_is_refused(root):
    with pytest.raises(NotFoundError, match="not a URL that can be fetched"):
        download("http://[::1/x.zip", root)


def test_a_url_of_another_kind_is_refused(root):
    with pytest.raises(NotFoundError, match="not a URL that can be fetched"):
        download("s3://bucket/x.zip", root)
