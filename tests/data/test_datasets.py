"""The stage download, from every place that a dataset can come from."""

import gzip
import shutil
import tarfile
import threading

import numpy as np
import pytest
from fault_server import LOGIN_PAGE, cut_after, send, serving
from ogb_archive import write_ogb, zip_folder

from citeflow import files
from citeflow.config import Config, DataConfig, SyntheticConfig
from citeflow.data import locks
from citeflow.data.datasets import approximate_citations, download_dataset, read_raw
from citeflow.errors import ConfigError, CorruptError, DataError, NotFoundError, UnavailableError

CONFIG = Config(synthetic=SyntheticConfig(num_papers=200))
PAPERS = "id,year\n1,1999\n2,2000\n3,2001\n"
CITATIONS = "citing,cited\n2,1\n3,1\n3,2\n"
VARIABLES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    for name in (*VARIABLES, "CITEFLOW_OGB_URL", "CITEFLOW_OGB_SHA256"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("citeflow.data.download.time.sleep", lambda _: None)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "papers.csv").write_text(PAPERS)
    (folder / "citations.csv.gz").write_bytes(gzip.compress(CITATIONS.encode()))
    (folder / "notes.txt").write_text("not part of the dataset")
    return folder


@pytest.fixture(scope="module")
def citation2(tmp_path_factory):
    work = tmp_path_factory.mktemp("ogb")
    write_ogb(work / "citation-v2")
    return zip_folder(work / "citation-v2", work / "citation-v2.zip")


@pytest.fixture
def server(citation2, monkeypatch):
    """OGB's server."""
    with serving(citation2.read_bytes()) as running:
        monkeypatch.setenv("CITEFLOW_OGB_URL", running.url)
        yield running


def download(dataset, root, config=CONFIG):
    return download_dataset(str(dataset), data_root=root, config=config)


def state_of(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def assert_nothing_stored(root):
    assert [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_synthetic_is_generated_once_per_setting(root):
    raw = download("synthetic", root)
    before = state_of(raw)
    assert download("synthetic", root) == raw
    assert state_of(raw) == before
    assert len(read_raw(raw, DataConfig()).id_N) == 200
    assert download("synthetic", root, Config(synthetic=SyntheticConfig(num_papers=150))) != raw


def test_folder_is_copied_without_other_files(root, folder):
    raw = download(folder, root)
    assert raw.parent == root / "raw"
    assert len(raw.name) == 16
    names = {path.name for path in raw.iterdir()}
    assert names == {"papers.csv", "citations.csv.gz", "manifest.json"}
    facts = files.verify(raw, "RawDataset").facts
    assert (facts["dataset"], facts["format"]) == ("mine", "folder")
    assert facts["stages"]["download"]["seconds"] > 0
    assert read_raw(raw, DataConfig()).edge_2E.tolist() == [[1, 2, 2], [0, 0, 1]]


def test_same_content_is_stored_once(root, folder):
    raw = download(folder, root)
    before = state_of(root)
    assert download(folder, root) == raw
    assert state_of(root) == before
    np.save(folder / "features.npy", np.zeros((3, 2), np.float32))
    other = download(folder, root)
    assert other != raw
    assert (other / "features.npy").is_file()


def test_damaged_dataset_is_stored_again(root, folder):
    for dataset in (folder, "synthetic"):
        raw = download(dataset, root)
        table = next(raw.glob("papers.*"))
        table.write_bytes(table.read_bytes()[:-1])
        assert download(dataset, root) == raw
        files.verify(raw, "RawDataset")


def test_read_raw_refuses_a_changed_dataset(root, folder):
    raw = download(folder, root)
    (raw / "papers.csv").write_text(PAPERS.replace("1999", "1998"))
    with pytest.raises(CorruptError, match="sha256"):
        read_raw(raw, DataConfig())


def test_folder_without_citations_or_with_two_tables_is_refused(root, folder):
    (folder / "papers.csv.gz").write_bytes(gzip.compress(PAPERS.encode()))
    with pytest.raises(DataError, match=r"the same table twice: papers.csv, papers.csv.gz"):
        download(folder, root)
    (folder / "papers.csv.gz").unlink()
    (folder / "citations.csv.gz").unlink()
    with pytest.raises(NotFoundError, match="no citations table") as caught:
        download(folder, root)
    assert ".csv.gz" in caught.value.hint
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("syntetic", "synthetic"), ("ogbl-citation", "ogbl-citation2"), ("", ""), ("../none", "")],
)
def test_unknown_dataset_gets_the_nearest_name(root, name, nearest):
    with pytest.raises(NotFoundError, match=f"no such dataset: {name}") as caught:
        download(name, root)
    assert (f"did you mean {nearest}?" in caught.value.hint) is bool(nearest)
    assert not root.exists()


def test_ogbl_citation2_is_downloaded_once_and_read(root, server):
    server.script = [cut_after(5_000), send(503), cut_after(3_000)]
    raw = download("ogbl-citation2", root)
    assert server.sent_bytes == len(server.content)
    num_requests = len(server.requests)
    assert download("ogbl-citation2", root) == raw
    assert len(server.requests) == num_requests
    facts = files.verify(raw, "RawDataset").facts
    assert (facts["dataset"], facts["format"]) == ("ogbl-citation2", "ogb")
    assert (facts["url"], len(facts["archive_sha256"])) == (server.url, 64)
    kept = {path.name for path in (root / "raw" / ".downloads").rglob("*") if path.is_file()}
    assert kept == {"note.json", "download.lock"}
    graph = read_raw(raw, DataConfig())
    assert graph.edge_2E.shape == (2, 300)
    assert graph.split.test.negative_PK.shape == (7, 20)


def test_ogbl_citation2_with_a_wrong_digest_is_refused(root, server, citation2, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_SHA256", "0" * 64)
    with pytest.raises(DataError, match="wrong sha256"):
        download("ogbl-citation2", root)
    assert_nothing_stored(root)
    monkeypatch.setenv("CITEFLOW_OGB_SHA256", files.sha256_of_file(citation2).upper())
    assert download("ogbl-citation2", root).is_dir()
    monkeypatch.setenv("CITEFLOW_OGB_SHA256", "1" * 64)  # a note does not stand for a new digest
    with pytest.raises(DataError, match="wrong sha256"):
        download("ogbl-citation2", root)


def test_ogb_archive_from_anywhere_is_stored_once(root, server, citation2):
    raw = download(server.url, root)
    for dataset in (citation2.as_uri(), citation2, citation2.with_suffix("")):
        assert download(dataset, root) == raw


def test_ogbl_citation2_refuses_another_format(root, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CITEFLOW_OGB_URL", zip_folder(folder, tmp_path / "mine.zip").as_uri())
    with pytest.raises(DataError, match="not in the layout of ogbl-citation2"):
        download("ogbl-citation2", root)
    assert_nothing_stored(root)


def test_archives_are_the_same_dataset_until_they_change(root, folder, tmp_path):
    packed = zip_folder(folder, tmp_path / "mine.zip")
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as file:
        for path in folder.iterdir():
            file.add(path, path.name)
    raw = download(folder, root)
    for dataset in (folder.as_uri(), packed, packed.as_uri(), tmp_path / "mine.tar.gz"):
        assert download(dataset, root) == raw
    (folder / "papers.csv").write_text(PAPERS + "4,2002\n")
    zip_folder(folder, packed)
    assert download(packed.as_uri(), root) != raw


@pytest.mark.parametrize("names", [[], ["one", "two"]])
def test_archive_without_one_dataset_is_refused(root, folder, tmp_path, names):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in names:
            file.add(folder, name)
    with pytest.raises(DataError, match=f"archive with {len(names)} datasets") as caught:
        download(tmp_path / "a.tar", root)
    assert ("one, two" if names else "papers") in caught.value.hint
    assert_nothing_stored(root)


def test_login_page_is_refused_and_not_kept(root, server):
    server.script = [send(200, LOGIN_PAGE)]
    with pytest.raises(DataError, match=r"damaged archive: file\.zip") as caught:
        download("ogbl-citation2", root)
    assert "web page" in caught.value.hint
    assert_nothing_stored(root)
    assert download("ogbl-citation2", root).is_dir()


def test_failed_download_leaves_only_a_part_to_resume(root, server):
    server.script = [cut_after(4_000), *[send(503)] * 9]
    with pytest.raises(UnavailableError):
        download("ogbl-citation2", root)
    assert [path.name for path in (root / "raw").iterdir()] == [".downloads"]
    server.script = []
    download("ogbl-citation2", root)
    assert server.ranges[-1] == "bytes=4000-"


def test_note_of_a_removed_dataset_is_ignored(root, server):
    raw = download(server.url, root)
    shutil.rmtree(raw)
    assert download(server.url, root) == raw
    assert (raw / "manifest.json").is_file()


def test_two_downloads_at_once_request_once(root, server):
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


def test_download_waits_for_another_process_up_to_a_limit(root, server, monkeypatch, capsys):
    monkeypatch.setattr(locks, "MAX_WAIT_MIN", 2)
    monkeypatch.setattr(locks, "LOG_EVERY_S", 0.01)
    lock = root / "raw" / ".downloads" / files.sha256_of_json(server.url)[:16] / "download.lock"
    with files.exclusive(lock), pytest.raises(UnavailableError, match="another process"):
        download(server.url, root)
    assert server.requests == []
    assert capsys.readouterr().err.count("waiting for another process") == 2
    download(server.url, root)


def test_digest_of_a_url_is_checked(root, server, citation2):
    with pytest.raises(DataError, match="wrong sha256"):
        download(f"{server.url}#SHA256={'A' * 64}", root)
    raw = download(f"{server.url}#SHA256={files.sha256_of_file(citation2).upper()}", root)
    assert files.read_manifest(raw, "RawDataset").facts["dataset"] == "file"


@pytest.mark.parametrize("fragment", ["md5=00ff", "sha256=00ff", "sha256=" + "g" * 64, "0" * 64])
def test_wrong_digest_or_url_is_refused(root, server, folder, fragment):
    with pytest.raises(ConfigError, match="not a digest"):
        download(f"{server.url}#{fragment}", root)
    with pytest.raises(ConfigError, match="a folder has no sha256"):
        download(f"{folder.as_uri()}#sha256={'0' * 64}", root)
    for url in ("http://[::1/x.zip", "file://[::1/x.zip", "s3://bucket/x.zip"):
        with pytest.raises(NotFoundError, match="not a URL that can be fetched"):
            download(url, root)
    assert server.requests == []
    assert not root.exists()


@pytest.mark.parametrize("num_papers", [300, 3000])
def test_approximate_citations_is_about_right(tmp_path, num_papers):
    settings = Config(synthetic=SyntheticConfig(num_papers=num_papers))
    raw = download_dataset("synthetic", data_root=tmp_path, config=settings)
    wanted = read_raw(raw, settings.data).edge_2E.shape[1]
    assert wanted / 3 < approximate_citations(raw) < 3 * wanted
