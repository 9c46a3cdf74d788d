"""Uploads, hostile ones among them: a line of refusal each, and nothing stays."""

import io
import tarfile
import zipfile

import pytest

from citeflow.platform import uploads

API = "/api/v1"
EDGES = b"citing,cited\n" + b"".join(b"%d,%d\n" % (n, n // 2) for n in range(1, 60))


def upload(client, content, name="edges.csv", **options):
    return client.post(f"{API}/uploads?name={name}", content=content, **options)


def zipped(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def link_in_a_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("papers.csv")
        entry.type = tarfile.SYMTYPE
        entry.linkname = "/etc/passwd"
        archive.addfile(entry)
    return buffer.getvalue()


HOSTILE = {
    "program": ("edges.csv", b"\x7fELF" + bytes(200)),
    "nothing": ("edges.csv", b""),
    "text": ("edges.csv", b"hello\n"),
    "leads-out": ("a.zip", zipped({"../../../evil.csv": EDGES})),
    "absolute": ("a.zip", zipped({"/tmp/evil.csv": EDGES})),
    "link": ("a.tar.gz", link_in_a_tar()),
    "half": ("a.zip", zipped({"papers.csv": EDGES})[:-40]),
}


def files_of(platform):
    return [path for path in platform.backend.folder("ann").rglob("*") if path.is_file()]


def test_upload_is_known_by_its_content(platform):
    client = platform.client("ann")
    answer = upload(client, EDGES)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["bytes"] == len(EDGES)
    assert made["verdict"]["papers"] == 60
    assert client.get(f"{API}/uploads").json()["uploads"] == [made]
    run = platform.submit("ann", dataset=f"upload:{made['id']}")
    assert run["dataset"] == "edges.csv"
    theirs = {"dataset": f"upload:{made['id']}"}
    assert platform.client("bob").post(f"{API}/runs", json=theirs).status_code == 404
    assert client.delete(f"{API}/uploads/{made['id']}").status_code == 204
    assert files_of(platform) == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_upload_is_refused_in_a_line(platform, kind):
    name, content = HOSTILE[kind]
    answer = upload(platform.client("ann"), content, name)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert "\n" not in problem["detail"]
    assert str(platform.backend.root) not in answer.text
    assert files_of(platform) == []
    assert platform.client("ann").get(f"{API}/uploads").json() == {"uploads": []}


def test_bomb_is_stopped_while_it_grows(platform, monkeypatch):
    monkeypatch.setattr(uploads, "LEAST_BYTES", 1 << 20)
    bomb = zipped({"citations.csv": b"citing,cited\n" + b"1,2\n" * (16 << 20)})
    assert len(bomb) < 200_000
    answer = upload(platform.client("ann"), bomb, "a.zip")
    assert answer.status_code == 422, answer.text
    assert files_of(platform) == []


def test_upload_that_is_too_large_is_cut_off(platform, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 1_000)
    sent = []

    def chunks():
        for _ in range(100):
            sent.append(1)
            yield bytes(500)

    answer = upload(platform.client("ann"), chunks())
    assert answer.status_code == 413
    assert files_of(platform) == []


@pytest.mark.parametrize(
    "name", ["../x.csv", "a/b.csv", ".bashrc", "-rf", "", "a%00.csv", "x" * 130, "a%0a.csv"]
)
def test_name_that_is_a_path_is_refused(platform, name):
    answer = upload(platform.client("ann"), EDGES, name)
    assert (answer.status_code, answer.json()["field"]) == (422, "name")


def test_upload_with_one_key_is_one(platform):
    client, headers = platform.client("ann"), {"Idempotency-Key": "k"}
    first, again = (upload(client, EDGES, headers=headers).json() for _ in range(2))
    assert first == again
    assert len(client.get(f"{API}/uploads").json()["uploads"]) == 1


def test_upload_needs_an_environment(platform):
    answer = upload(platform.client("root"), EDGES)
    assert (answer.status_code, answer.json()["hint"]) == (409, "choose its size first")
