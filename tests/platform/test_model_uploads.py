"""Models of users: told by their content, refused in a line where they are hostile, and trained."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import select

from citeflow import files
from citeflow.platform import model_file, store, uploads
from citeflow.tasks import load_settings

API = "/api/v1"
CODE = b"def build(settings):\n    return None\n"
WEIGHTS = save({"out.bias": np.zeros(3, np.float32), "out.weight": np.zeros((3, 4), np.float32)})


def upload(client, content, name="model.bin", kind="model", **options):
    url = f"{API}/uploads?name={name}&kind={kind}"
    return client.post(url, content=content, **options)


def made(platform, user, content, name="model.bin", kind="model"):
    answer = upload(platform.client(user), content, name, kind)
    assert answer.status_code == 201, answer.text
    return answer.json()


def safetensors_of(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(first, last, shape=(1,)):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [first, last]}


def zipped(size=100):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": [1.0]}))
        archive.writestr("archive/data/0", bytes(size))
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return print, ("executed",)


HOSTILE = {
    # Weights.
    "a pickle that executes": (pickle.dumps(Evil()), "a pickle"),
    "a checkpoint of torch.save": (zipped(), "a zip"),
    "a zip bomb": (zipped(64 << 20), "a zip"),
    "an array of numpy": (b"\x93NUMPY" + bytes(100), "an array of numpy"),
    "an archive": (b"\x1f\x8b" + bytes(100), "an archive"),
    "a program": (b"\x7fELF\xff" + bytes(100), "neither weights nor code"),
    "a huge header": (struct.pack("<Q", 2**62) + b"{}", "no safetensors file"),
    "a header beyond the file": (struct.pack("<Q", 1000) + b"{}", "no safetensors file"),
    "a header that is not JSON": (safetensors_of(b"{[[["), "no safetensors file"),
    "a deep header": (safetensors_of(b'{"a":' * 100_000), "no safetensors file"),
    "tensors that overlap": (
        safetensors_of({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)),
        "no safetensors file",
    ),
    "offsets beyond the file": (
        safetensors_of({"a": entry(0, 400, (100,))}, bytes(4)),
        "no safetensors file",
    ),
    "a shape of another size": (
        safetensors_of({"a": entry(0, 4, (1 << 60,))}, bytes(4)),
        "no safetensors file",
    ),
    "data that nothing names": (safetensors_of({"a": entry(0, 4)}, bytes(99)), "no safetensors"),
    "no tensor": (safetensors_of({}), "weights without any tensor"),
    "a name to deceive a terminal": (
        safetensors_of({"\x1b[2J": entry(0, 4)}, bytes(4)),
        "not the name of a tensor",
    ),
    "a very long name": (safetensors_of({"a" * 999: entry(0, 4)}, bytes(4)), "not the name"),
    "very many tensors": (
        safetensors_of({f"a{n}": entry(4 * n, 4 * n + 4) for n in range(10_001)}, bytes(40_004)),
        "more than 10,000 tensors",
    ),
    # Code.
    "a syntax error": (b"def build(settings:\n", "no Python: line 1"),
    "another language": (b"fn build(settings: S) -> M { M {} }\n", "no Python: line 1"),
    "not UTF-8": (b"def build(settings):\n    return '\xff'\n", "neither weights nor code"),
    "a NUL": (b"def build(settings):\n    return '\0'\n", "no Python code"),
    "nothing but blanks": (b" \n\t\n", "no Python code"),
    "no build": (b"def make(settings):\n    return None\n", "no function: build(settings)"),
    "build inside of a class": (b"class A:\n    def build(self): pass\n", "no function: build"),
    "build without an argument": (b"def build():\n    return None\n", "does not take one argument"),
    "an async build": (b"async def build(settings):\n    return None\n", "no plain function"),
    "too much code": (CODE + b"#" * (2 << 20), "too large"),
    "deep brackets": (b"x = " + b"(" * 100_000 + b")" * 100_000, "no Python"),
    "deep operators": (CODE + b"x = " + b"-" * 500_000 + b"1\n", ""),
    "deep attributes": (CODE + b"x = a" + b".b" * 300_000 + b"\n", ""),
    "an integer of many digits": (b"x = " + b"9" * 10_000 + b"\n" + CODE, "no Python"),
}


def files_of(platform):
    return [path for path in platform.backend.folder("ann").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_model_is_refused_in_a_line_and_nothing_stays(platform, kind):
    content, expected = HOSTILE[kind]
    client = platform.client("ann")
    answer = upload(client, content)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail = answer.json()["detail"]
    assert expected in detail
    assert detail.isprintable()
    assert str(platform.backend.root) not in answer.text
    assert files_of(platform) == []
    assert client.get(f"{API}/uploads").json() == {"uploads": []}


@pytest.mark.parametrize("name", ["../m.py", "a/b.py", ".m.py", "m%00.py", "m%0a.py", "-c.py"])
def test_name_that_could_be_a_path_or_a_link_is_refused(platform, name):
    answer = upload(platform.client("ann"), CODE, name)
    assert (answer.status_code, answer.json()["field"]) == (422, "name")
    assert files_of(platform) == []


def test_model_that_is_too_large_is_cut_off(platform, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_MODEL_BYTES", 1_000)
    answer = upload(platform.client("ann"), (bytes(500) for _ in range(100)))
    assert answer.status_code == 413
    assert files_of(platform) == []


def test_model_is_known_by_its_content(platform):
    weights = made(platform, "ann", WEIGHTS, "net.py")
    assert weights["kind"] == "weights"
    verdict = weights["verdict"]
    assert (verdict["summary"], verdict["parameters"]) == ("2 tensors, 15 parameters", 15)
    assert [(each["name"], each["shape"], each["type"]) for each in verdict["tensors"]] == [
        ("out.bias", [3], "F32"),
        ("out.weight", [3, 4], "F32"),
    ]
    code = made(platform, "ann", CODE, "net.safetensors")
    assert (code["kind"], code["verdict"]["summary"]) == ("code", "2 lines with build(settings)")
    as_data = upload(platform.client("ann"), CODE, "net.py", kind="dataset")
    assert as_data.status_code == 422
    listed = platform.client("ann").get(f"{API}/uploads").json()["uploads"]
    assert listed == [code, weights]
    assert platform.client("bob").get(f"{API}/uploads").json() == {"uploads": []}


@pytest.mark.parametrize(
    "source",
    [
        "def build(settings, width=3): pass",
        "def build(*settings): pass",
        "class build: pass",
        "build = lambda settings: None",
        "from torchvision.models import resnet18 as build",
        "try:\n    import x\nexcept ImportError:\n    def build(settings): pass",
        "def build(): pass\nbuild = make",
    ],
)
def test_look_finds_every_name_that_can_be_called(tmp_path, source):
    (tmp_path / "m").write_text(source)
    assert model_file.look(tmp_path / "m").format == "code (Python)"


def test_look_executes_nothing(tmp_path):
    witness = tmp_path / "witness"
    (tmp_path / "m").write_text(f"open({str(witness)!r}, 'w')\ndef build(settings): pass\n")
    model_file.look(tmp_path / "m")
    assert not witness.exists()


def own_of(row):
    return load_settings(row.task, text=row.yaml).to_dict()["model"]


def test_run_holds_the_digest_of_its_model_and_the_file_outlives_the_upload(platform):
    client = platform.client("ann")
    code, weights = made(platform, "ann", CODE, "gcn.py"), made(platform, "ann", WEIGHTS, "old")
    settings = {
        "train.minutes": 1,
        "model.code": f"upload:{code['id']}",
        "model.weights": f"upload:{weights['id']}",
    }
    run = platform.submit("ann", settings=settings)
    assert (run["model"], run["settings"]) == ("gcn.py, old", settings)
    with platform.services.store.read() as connection:
        (row,) = connection.execute(select(store.runs)).all()
    digests = code["verdict"]["sha256"], weights["verdict"]["sha256"]
    assert (own_of(row)["code"], own_of(row)["weights"]) == digests
    kept = platform.backend.folder("ann") / "own"
    paths = [kept / f"{digests[0]}.py", kept / f"{digests[1]}.safetensors"]
    for each in (code, weights):
        assert client.delete(f"{API}/uploads/{each['id']}").status_code == 204
    for path, digest in zip(paths, digests, strict=True):
        assert files.sha256_of_file(path) == digest


def test_files_of_a_model_go_with_the_last_run_that_names_them(platform):
    client, code = platform.client("ann"), made(platform, "ann", CODE)
    given = {"settings": {"model.code": f"upload:{code['id']}"}}
    runs = [platform.submit("ann", name=name, **given) for name in ("first", "second")]
    client.delete(f"{API}/uploads/{code['id']}")
    left = []
    for run in runs:
        client.post(f"{API}/runs/{run['id']}/cancel")
        assert client.delete(f"{API}/runs/{run['id']}").status_code == 204
        left.append(len(files_of(platform)))
    assert left == [1, 0]


def test_code_has_the_memory_that_goes_with_its_cores_and_no_more(platform):
    code = made(platform, "ann", CODE)
    platform.submit("ann", settings={"model.code": f"upload:{code['id']}"}, workers=1)
    with platform.services.store.read() as connection:
        (row,) = connection.execute(select(store.runs)).all()
    limits = load_settings(row.task, text=row.yaml).to_dict()["sandbox"]
    assert limits["memory_gib"] == 6  # size M has 16, and two cores
    assert row.memory == 6 << 30


def test_submission_with_a_file_of_another_kind_names_the_field(platform):
    code, weights = made(platform, "ann", CODE, "gcn.py"), made(platform, "ann", WEIGHTS, "w")
    client = platform.client("ann")
    for body, field in (
        ({"settings": {"model.code": f"upload:{weights['id']}"}}, "settings.model.code"),
        ({"settings": {"model.weights": f"upload:{code['id']}"}}, "settings.model.weights"),
        ({"settings": {"model.code": "/etc/passwd"}}, "settings.model.code"),
        ({"settings": {"model.code": code["verdict"]["sha256"]}}, "settings.model.code"),
        ({"dataset": f"upload:{code['id']}"}, "dataset"),
    ):
        answer = client.post(f"{API}/runs", json={"dataset": "synthetic", **body})
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    theirs = {"dataset": "synthetic", "settings": {"model.code": f"upload:{code['id']}"}}
    for path in ("runs", "runs/preview"):
        assert platform.client("bob").post(f"{API}/{path}", json=theirs).status_code == 404


def test_file_that_was_changed_on_the_volume_is_not_trained(platform):
    code = made(platform, "ann", CODE, "gcn.py")
    path = platform.backend.folder("ann") / "uploads" / code["id"] / "gcn.py"
    path.unlink()
    path.write_bytes(CODE + b"import os\n")
    body = {"dataset": "synthetic", "settings": {"model.code": f"upload:{code['id']}"}}
    answer = platform.client("ann").post(f"{API}/runs", json=body)
    assert answer.status_code == 422
    assert "not the file that was uploaded" in answer.json()["detail"]
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert platform.client("ann").post(f"{API}/runs", json=body).status_code == 422
    assert platform.client("ann").get(f"{API}/runs").json() == {"runs": []}


def test_code_is_refused_where_nothing_confines_it_and_the_form_says_so(platform):
    platform.backend.problem = "bubblewrap is not installed"
    client = platform.client("ann")
    form = client.get(f"{API}/form/citation").json()
    assert form["code_problem"] == "bubblewrap is not installed"
    code, weights = made(platform, "ann", CODE), made(platform, "ann", WEIGHTS)
    body = {"dataset": "synthetic", "settings": {"model.code": f"upload:{code['id']}"}}
    for path in ("runs", "runs/preview"):
        answer = client.post(f"{API}/{path}", json=body)
        assert answer.status_code == 422
        assert answer.json()["detail"] == "code cannot run here: bubblewrap is not installed"
        assert answer.json()["field"] == "settings.model.code"
    platform.submit("ann", settings={"model.weights": f"upload:{weights['id']}"})


def test_model_with_code_is_neither_deployed_nor_asked(platform, succeed):
    client, code = platform.client("ann"), made(platform, "ann", CODE)
    own = platform.submit("ann", settings={"model.code": f"upload:{code['id']}"})
    succeed(platform, own)
    (model,) = client.get(f"{API}/models").json()["models"]
    assert [version["has_code"] for version in model["versions"]] == [True]
    deployed = client.put(f"{API}/models/synthetic/deployment", json={"version": 1})
    asked = client.get(f"{API}/try/synthetic/papers?words=on")
    for answer in (deployed, asked):
        assert answer.status_code == 409
        assert answer.json()["detail"].startswith("a model with code of its own cannot be asked")
    succeed(platform, platform.submit("ann"))
    client.put(f"{API}/models/synthetic/aliases/champion", json={"version": 1, "force": True})
    answer = client.post(f"{API}/try/synthetic/citations", json={"paper": "p300"})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
