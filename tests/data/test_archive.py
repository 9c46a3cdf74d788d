"""Archives that were made to do harm, or were damaged."""

import gzip
import io
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from citeflow import files
from citeflow.data import archive as archive_module
from citeflow.data.archive import extract, extract_tar, extract_zip
from citeflow.errors import DataError, NotFoundError

NOISE = random.Random(1).randbytes(50_000)


def make_zip(path, *entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path, *entries):
    with tarfile.open(path, "w:gz") as file:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                file.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                file.addfile(info, io.BytesIO(entry[1]))
    return path


makers = pytest.mark.parametrize("make", [make_zip, make_tar])


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tree(folder):
    """All files below a folder, and their sizes, so that a file which grew is another one."""
    return {(path, path.lstat().st_size if not path.is_dir() else 0) for path in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Unpack, which must fail and leave nothing, inside the target or anywhere near it."""
    written = []
    save_chunks = files.save_chunks

    def counted(path, chunks, **options):
        def passing():
            for chunk in chunks:
                written.append((path.resolve(), len(chunk)))
                yield chunk

        return save_chunks(path, passing(), **options)

    monkeypatch.setattr(files, "save_chunks", counted)

    def check(archive, match, **limits):
        written.clear()
        before = tree(tmp_path)
        with pytest.raises(DataError, match=match) as caught:  # noqa: SIM117, the inner one first
            with files.new_directory(tmp_path / "out") as work:
                extract(archive, work, **limits)
        outside = {path for path, _ in written if work not in path.parents}
        outside |= tree(tmp_path) ^ before
        num_bytes = sum(count for _, count in written)
        assert not outside
        assert not Path("/evil").exists()
        assert num_bytes <= limits.get("max_bytes", len(NOISE))
        assert "\n" not in caught.value.what + caught.value.value

    return check


def test_extract_zip_with_its_folders(tmp_path):
    entries = (("top/", b""), ("top/a.csv", NOISE), ("top/in/b.csv", b""))
    extract_zip(make_zip(tmp_path / "a.zip", *entries), tmp_path / "out")
    assert (tmp_path / "out/top/a.csv").read_bytes() == NOISE
    assert (tmp_path / "out/top/in/b.csv").read_bytes() == b""


def test_extract_tar_with_and_without_gzip(tmp_path):
    packed = make_tar(tmp_path / "a.tar.gz", special("./", tarfile.DIRTYPE), ("./top/a.csv", NOISE))
    (tmp_path / "a.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    for name in ("a.tar.gz", "a.tar"):
        extract(tmp_path / name, tmp_path / name[2:])
        assert (tmp_path / name[2:] / "top/a.csv").read_bytes() == NOISE


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    "name",
    ["../evil", "in/../../evil", "/evil", "//evil", "..\\evil", "C:\\evil", "c:evil", "a\0b"],
)
def test_extract_refuses_a_name_that_leads_outside(refused, tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", ("good", b"1"), ("X" * len(name), b"2"))
    archive.write_bytes(archive.read_bytes().replace(b"X" * len(name), name.encode()))
    refused(archive, "leads outside")
    if "\0" not in name:
        refused(make_tar(tmp_path / "a.tgz", ("good", b"1"), (name, b"2")), "leads outside")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_extract_refuses_a_link_or_device_in_a_zip(refused, tmp_path, mode):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "a link or a device")


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_extract_writes_through_no_link_or_device(refused, tmp_path, kind):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("mine")
    target = tmp_path / "outside" / ("" if kind == tarfile.SYMTYPE else "file")
    under = "link/evil" if kind == tarfile.SYMTYPE else "link"
    archive = make_tar(tmp_path / "a.tgz", special("link", kind, str(target)), (under, b"evil"))
    refused(archive, "a link or a device")
    assert (tmp_path / "outside/file").read_text() == "mine"


@pytest.mark.fault("F24")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("a", "a"), "the same name twice"),
        (("in/a", "in//a"), "the same name twice"),
        (("a", "./a"), "the same name twice"),
        (("a", "a/b"), "a file that is also a folder"),
        ([f"{index}" for index in range(101)], "more than 100 entries"),
    ],
)
@makers
def test_extract_refuses_names_that_do_not_fit(refused, tmp_path, make, names, match):
    entries = [(name, b"1") for name in names]
    refused(make(tmp_path / "a", *entries), match, max_files=100)


@pytest.mark.fault("F24")
@makers
def test_extract_refuses_a_bomb_by_its_declared_size(refused, tmp_path, make):
    bomb = make(tmp_path / "a", ("a", bytes(10_000_000)))
    refused(bomb, "1,000,000 bytes", max_bytes=1_000_000)


@pytest.mark.fault("F24")
def test_extract_refuses_a_bomb_that_lies_about_its_size(refused, tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("a", bytes(3_000_000)))
    content = archive.read_bytes()
    short = content.replace((3_000_000).to_bytes(4, "little"), (3).to_bytes(4, "little"))
    assert short != content
    archive.write_bytes(short)
    refused(archive, "damaged archive", max_bytes=1_000_000)


@pytest.mark.fault("F24")
def test_extract_counts_a_sparse_file_in_its_full_size(refused, tmp_path):
    info = special("sparse", tarfile.REGTYPE)
    sizes = {"size": str(1 << 50), "map": f"{1 << 50},0", "name": "a"}
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in sizes.items()}
    refused(make_tar(tmp_path / "a.tgz", info), "more than 10,000 entries or")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_extract_reads_no_huge_header_into_memory(refused, tmp_path, kind):
    header = special("name", kind)
    header.size = 64 << 20
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    refused(tmp_path / "a.tgz", "a header of 67,108,864 bytes")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 << 20


@pytest.mark.fault("F24", nightly=True)
def test_extract_refuses_a_million_entries(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a" * 7, b"")
    content = (tmp_path / "a.zip").read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry = content[start:end]
    entries = b"".join(entry.replace(b"a" * 7, b"%07d" % number) for number in range(10**6))
    sizes = (10**6, 10**6, len(entries), start)
    count = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, *sizes)
    locator = struct.pack("<IIQI", 0x07064B50, 0, start + len(entries), 1)
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "a.zip").write_bytes(content[:start] + entries + count + locator + tail)
    assert zipfile.is_zipfile(tmp_path / "a.zip")
    refused(tmp_path / "a.zip", "more than 10,000 entries")


@pytest.mark.fault("F24")
def test_extract_counts_the_bytes_that_it_writes(refused, tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", ("a", b"12"), ("b", b"345"))
    monkeypatch.setattr(
        archive_module, "_check", lambda _, entries, *__: {Path(e.name): e for e in entries}
    )
    refused(archive, "more bytes than it declares", max_bytes=4)


@pytest.mark.fault("F24")
@makers
def test_extract_refuses_a_flipped_bit(refused, tmp_path, make):
    packed = bytearray(make(tmp_path / "a", ("a", NOISE)).read_bytes())
    packed[25_000] ^= 1
    (tmp_path / "a").write_bytes(packed)
    refused(tmp_path / "a", "damaged archive")


@pytest.mark.fault("F24")
def test_extract_checks_the_sum_at_the_end_of_gzip(refused, tmp_path):
    packed = make_tar(tmp_path / "a.tgz", ("a", NOISE))
    stored = bytearray(gzip.compress(gzip.decompress(packed.read_bytes()), compresslevel=0))
    stored[25_000] ^= 1  # uncompressed, so that nothing else notices it
    (tmp_path / "a.tgz").write_bytes(stored)
    refused(tmp_path / "a.tgz", "damaged archive")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@makers
def test_extract_refuses_a_truncated_archive(refused, tmp_path, make, share):
    content = make(tmp_path / "a", ("a", NOISE)).read_bytes()
    (tmp_path / "a").write_bytes(content[: int(share * len(content))])
    refused(tmp_path / "a", "damaged archive")


@pytest.mark.fault("F24")
def test_extract_refuses_data_behind_the_end_of_a_tar(refused, tmp_path):
    archive = make_tar(tmp_path / "a.tgz", ("a", b"1"))
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()) + bytes(3 << 20)))
    refused(archive, "behind the end")


@pytest.mark.fault("F24")
def test_extract_refuses_an_encrypted_entry(refused, tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("a", b"1"))
    packed = bytearray(archive.read_bytes())
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(packed)
    refused(archive, "damaged archive")


def test_extract_calls_a_web_page_one_and_names_nothing(tmp_path):
    (tmp_path / "a.zip").write_text("\n<html>Log in</html>")
    with pytest.raises(DataError) as caught:
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert "web page" in caught.value.hint
    for unpack in (extract, extract_zip, extract_tar):
        with pytest.raises(NotFoundError):
            unpack(tmp_path / "nothing", tmp_path / "out")
