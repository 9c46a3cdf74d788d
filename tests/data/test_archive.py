"""Archives that were made to do harm, or were harmed."""

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


def make_zip(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, *entries: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                file.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                file.addfile(info, io.BytesIO(entry[1]))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def refused(tmp_path, monkeypatch, figure):
    """Unpack, which must fail with the right error and leave nothing, inside the target or anywhere near it."""
    written = []

    def counted(path, chunks, **options):
        def passing():
            for chunk in chunks:
                written.append((path.resolve(), len(chunk)))
                yield chunk

        return save_chunks(path, passing(), **options)

    save_chunks = files.save_chunks
    monkeypatch.setattr(files, "save_chunks", counted)

    def check(archive: Path, match: str, **limits: int) -> None:
        written.clear()
        before = tree(tmp_path)
        with (
            pytest.raises(DataError, match=match) as caught,
            files.new_directory(tmp_path / "out") as work,
        ):
            extract(archive, work, **limits)
        outside = tree(tmp_path) ^ before | {
            path for path, _ in written if work not in path.parents
        }
        num_bytes = sum(count for _, count in written)
        figure(archives=1, files_outside=len(outside), most_bytes_written=float(num_bytes))
        assert not outside
        assert not Path("/evil").exists()
        assert num_bytes <= limits.get("max_bytes", len(NOISE))
        assert "\n" not in caught.value.what + caught.value.value

    return check


def tree(folder: Path) -> set[tuple[Path, int]]:
    """All files below a folder, and their sizes, so that a file which grew is another one."""
    return {(path, path.lstat().st_size if not path.is_dir() else 0) for path in folder.rglob("*")}


def test_a_zip_is_unpacked_with_its_folders(tmp_path):
    archive = make_zip(
        tmp_path / "a.zip", ("top/", b""), ("top/a.csv", NOISE), ("top/in/b.csv", b"")
    )
    extract_zip(archive, tmp_path / "out")
    assert (tmp_path / "out/top/a.csv").read_bytes() == NOISE
    assert (tmp_path / "out/top/in/b.csv").read_bytes() == b""


def test_a_tar_with_and_without_gzip_is_unpacked(tmp_path):
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
def test_a_name_that_leads_outside_is_refused(refused, tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", ("good", b"1"), ("X" * len(name), b"2"))
    archive.write_bytes(archive.read_bytes().replace(b"X" * len(name), name.encode()))
    refused(archive, "leads outside")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_a_name_in_a_tar_that_leads_outside_is_refused(refused, tmp_path, name):
    refused(make_tar(tmp_path / "a.tgz", ("good", b"1"), (name, b"2")), "leads outside")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_in_a_zip_is_refused(refused, tmp_path, mode):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "a link or a device")


@pytest.mark.fault("F24")
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_a_link_or_device_in_a_tar_is_refused(refused, tmp_path, kind):
    refused(
        make_tar(tmp_path / "a.tgz", special("link", kind, "/etc/passwd")), "a link or a device"
    )


@pytest.mark.fault("F24")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_nothing_is_written_through_a_link_that_came_before_it(refused, tmp_path, kind):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("mine")
    place = tmp_path / "outside" / ("" if kind == tarfile.SYMTYPE else "file")
    under = "link/evil" if kind == tarfile.SYMTYPE else "link"
    refused(
        make_tar(tmp_path / "a.tgz", special("link", kind, str(place)), (under, b"evil")),
        "a link or a device",
    )
    assert (tmp_path / "outside/file").read_text() == "mine"


@pytest.mark.fault("F24")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a"), ("in/a", "in//a"), ("a", "./a")])
def test_a_name_that_occurs_twice_is_refused(refused, tmp_path, names):
    entries = [(name, b"1") for name in names]
    refused(make_zip(tmp_path / "a.zip", *entries), "the same name twice")
    refused(make_tar(tmp_path / "a.tgz", *entries), "the same name twice")


@pytest.mark.fault("F24")
def test_a_file_that_is_also_a_folder_is_refused(refused, tmp_path):
    refused(
        make_zip(tmp_path / "a.zip", ("a", b"1"), ("a/b", b"2")), "a file that is also a folder"
    )


@pytest.mark.fault("F24")
def test_too_many_entries_are_refused(refused, tmp_path):
    entries = [(f"{index}", b"") for index in range(101)]
    refused(make_zip(tmp_path / "a.zip", *entries), "more than 100 entries", max_files=100)
    refused(make_tar(tmp_path / "a.tgz", *entries), "more than 100 entries", max_files=100)


@pytest.mark.fault("F24")
def test_a_bomb_is_refused_by_the_size_that_it_declares(refused, tmp_path):
    bomb = bytes(30_000_000)
    refused(make_zip(tmp_path / "a.zip", ("a", bomb)), "1,000,000 bytes", max_bytes=1_000_000)
    refused(make_tar(tmp_path / "a.tgz", ("a", bomb)), "1,000,000 bytes", max_bytes=1_000_000)


@pytest.mark.fault("F24")
def test_a_bomb_that_declares_less_than_it_holds_does_not_get_written(refused, tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("a", bytes(3_000_000)))
    content = archive.read_bytes()
    archive.write_bytes(
        content.replace((3_000_000).to_bytes(4, "little"), (3).to_bytes(4, "little"))
    )
    assert archive.read_bytes() != content
    refused(archive, "damaged archive", max_bytes=1_000_000)


@pytest.mark.fault("F24")
def test_a_file_of_holes_counts_in_its_full_size(refused, tmp_path):
    info = special("sparse", tarfile.REGTYPE)
    info.pax_headers = {
        "GNU.sparse.size": str(1 << 50),
        "GNU.sparse.map": f"{1 << 50},0",
        "GNU.sparse.name": "a",
    }
    refused(make_tar(tmp_path / "a.tgz", info), "more than 10,000 entries or")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(refused, tmp_path, kind):
    header = special("name", kind)
    header.size = 128 << 20
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(128):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    refused(tmp_path / "a.tgz", "a header of 134,217,728 bytes")
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most_bytes < 32 << 20


@pytest.mark.fault("F24", nightly=True)
def test_a_million_entries_are_refused(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a" * 7, b"")
    content = (tmp_path / "a.zip").read_bytes()
    begin, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = b"".join(
        content[begin:end].replace(b"a" * 7, b"%07d" % number) for number in range(10**6)
    )
    count = struct.pack(
        "<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 10**6, 10**6, len(entries), begin
    )
    place = struct.pack("<IIQI", 0x07064B50, 0, begin + len(entries), 1)
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "a.zip").write_bytes(content[:begin] + entries + count + place + tail)
    assert zipfile.is_zipfile(tmp_path / "a.zip")
    refused(tmp_path / "a.zip", "more than 10,000 entries")


@pytest.mark.fault("F24")
def test_what_is_really_written_is_counted_too(refused, tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", ("a", b"12"), ("b", b"345"))
    monkeypatch.setattr(
        archive_module, "_check", lambda _, entries, *__: {Path(e.name): e for e in entries}
    )
    refused(archive, "more bytes than it declares", max_bytes=4)


@pytest.mark.fault("F24")
def test_a_flipped_bit_is_refused(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a", NOISE)
    packed = bytearray((tmp_path / "a.zip").read_bytes())
    packed[25_000] ^= 1
    (tmp_path / "a.zip").write_bytes(packed)
    refused(tmp_path / "a.zip", "damaged archive")


@pytest.mark.fault("F24")
def test_a_flipped_bit_in_a_tar_is_found_by_the_checksum_at_the_end_of_the_gzip_stream(
    refused, tmp_path
):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as file:
        info = tarfile.TarInfo("a")
        info.size = len(NOISE)
        file.addfile(info, io.BytesIO(NOISE))
    packed = bytearray(gzip.compress(plain.getvalue(), compresslevel=0))
    packed[25_000] ^= 1
    (tmp_path / "a.tgz").write_bytes(packed)
    refused(tmp_path / "a.tgz", "damaged archive")


@pytest.mark.fault("F24")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_archive_is_refused(refused, tmp_path, share):
    for archive in (
        make_zip(tmp_path / "a.zip", ("a", NOISE)),
        make_tar(tmp_path / "a.tgz", ("a", NOISE)),
    ):
        content = archive.read_bytes()
        archive.write_bytes(content[: int(share * len(content))])
        refused(archive, "damaged archive")


def test_a_web_page_is_called_one(tmp_path):
    (tmp_path / "a.zip").write_text("\n<html>Log in</html>")
    with pytest.raises(DataError) as caught:
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert "web page" in caught.value.hint


@pytest.mark.fault("F24")
def test_data_behind_the_end_of_a_tar_is_refused(refused, tmp_path):
    archive = make_tar(tmp_path / "a.tgz", ("a", b"1"))
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()) + bytes(3 << 20)))
    refused(archive, "behind the end")


@pytest.mark.fault("F24")
def test_an_encrypted_entry_is_refused(refused, tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("a", b"1"))
    packed = bytearray(archive.read_bytes())
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(packed)
    refused(archive, "damaged archive")


def test_a_missing_archive_is_not_found(tmp_path):
    for unpack in (extract_zip, extract_tar):
        with pytest.raises(NotFoundError):
            unpack(tmp_path / "nothing", tmp_path / "out")
