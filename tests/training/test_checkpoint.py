"""Checkpoints come back whole, belong to one run only, and are never half there."""

import errno
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from citeflow import files
from citeflow.errors import ConfigError, CorruptError
from citeflow.training import checkpoint
from citeflow.training.checkpoint import Progress

INPUTS = {"data": "a" * 64, "config": "b" * 64, "workers": 2}
DAMAGES = 200
PROGRESS = Progress(
    step=7,
    seconds=1.5,
    samples=700,
    best_score=0.25,
    history=[{"step": 5, "loss": 0.1 + 0.2}],
    evaluations=[{"step": 6, "valid_mrr": 0.25}],
)


def build(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))
    model.register_buffer("mean", torch.zeros(4))
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def take_step(model, optimizer):
    """Take one step, the same whenever it is taken."""
    optimizer.zero_grad()
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after three steps whose best model is that after two."""
    model, optimizer = build()
    take_step(model, optimizer)
    take_step(model, optimizer)
    best = weights(model)
    take_step(model, optimizer)
    save(tmp_path / "checkpoints", model, optimizer, best)
    return tmp_path / "checkpoints"


def save(folder, model, optimizer, best, **changes):
    given = {"progress": PROGRESS, "inputs": INPUTS, **changes}
    state = checkpoint.capture(
        model=model, optimizer=optimizer, best=best, progress=given["progress"]
    )
    checkpoint.write(folder, state.to_bytes(), given["inputs"])


def save_at(folder, *steps):
    """Checkpoints of several steps."""
    for step in steps:
        save(folder, *build(step), {}, progress=Progress(step=step))


def restore(folder, inputs=INPUTS, seed=1):
    model, optimizer = build(seed)
    state = checkpoint.read(folder, inputs)
    progress, best = checkpoint.restore(state, model=model, optimizer=optimizer)
    return model, optimizer, progress, best


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_restore_brings_back_model_optimizer_best_and_progress(saved):
    before, optimizer = build()
    take_step(before, optimizer)
    take_step(before, optimizer)
    model, restored, progress, best = restore(saved)
    assert is_same(best, weights(before))
    assert progress == PROGRESS
    for _ in range(2):
        take_step(before, optimizer)
    take_step(model, restored)
    assert is_same(weights(model), weights(before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.bfloat16])
def test_state_is_safetensors_of_whatever_type(dtype):
    model = torch.nn.Module()
    model.register_buffer("count", torch.ones(3, 2).to(dtype).T)
    state = checkpoint.capture(
        model=model, optimizer=build()[1], best={}, progress=PROGRESS
    ).to_bytes()
    expected = {"model.count": model.count.contiguous()}
    assert state.tensors == safetensors.torch.save(expected)


def test_restore_of_a_fresh_start_changes_nothing(tmp_path):
    model, optimizer, progress, best = restore(tmp_path / "none", seed=1)
    assert (progress, best) == (Progress(), {})
    assert is_same(weights(model), weights(build(1)[0]))
    assert not optimizer.state


@pytest.mark.parametrize("step", [7, 9])
def test_save_of_a_step_is_read_as_the_newest(saved, step):
    model, optimizer = build(2)
    save(saved, model, optimizer, {}, progress=Progress(step=step))
    restored, _, progress, best = restore(saved)
    assert (progress.step, progress.best_score, best) == (step, -1.0, {})
    assert is_same(weights(restored), weights(model))
    assert names(saved) == [f"step-{kept:08d}" for kept in sorted({7, step})]


def test_save_writes_tensors_and_json_alone(saved):
    (path,) = saved.iterdir()
    assert names(path) == ["manifest.json", "progress.json", "state.safetensors"]
    assert files.verify(path, "Checkpoint").facts == {"step": 7}
    keys = json.loads((path / "progress.json").read_text()).keys()
    assert {"positives", "evaluated_part", "best_mrr"} < keys


@pytest.mark.fault("F13")
@pytest.mark.parametrize("changed", [["data"], ["config"], ["workers"], list(INPUTS)])
def test_read_refuses_a_checkpoint_of_other_inputs(saved, changed):
    now = {**INPUTS, **dict.fromkeys(changed, "e" * 64)}
    with pytest.raises(ConfigError, match="other data, settings or workers") as caught:
        restore(saved, inputs=now)
    told = [f"{key} {INPUTS[key]}, now {now[key]}" for key in changed]
    assert caught.value.value == ", ".join(told)
    assert "another run name" in caught.value.hint


def damage(path, seed):
    """Flip a bit, cut, take away or lengthen one of the files; returns what was done to which."""
    random = np.random.default_rng(seed)
    file = path / ("manifest.json", "progress.json", "state.safetensors")[seed % 3]
    content, kind = (
        bytearray(file.read_bytes()),
        random.choice(["flip", "cut", "missing", "more"], p=[0.7, 0.1, 0.1, 0.1]),
    )
    if kind == "flip":
        content[random.integers(len(content))] ^= 1 << random.integers(8)
    elif kind == "cut":
        del content[random.integers(len(content)) :]
    elif kind == "more":
        content += random.bytes(random.integers(8, 500))
    file.unlink()
    if kind != "missing":
        file.write_bytes(content)
    return f"{file.name}: {kind}"


@pytest.mark.fault("F16")
def test_read_finds_two_hundred_damages_and_uses_the_one_before(tmp_path, capsys):
    save_at(tmp_path / "checkpoints", 1, 2)
    newest, whole = tmp_path / "checkpoints" / "step-00000002", tmp_path / "whole"
    shutil.copytree(newest, whole)
    assert checkpoint.read(newest.parent, INPUTS).step == 2
    kinds = set()
    for seed in range(DAMAGES):
        shutil.rmtree(newest)
        shutil.copytree(whole, newest)
        what = damage(newest, seed)
        kinds.add(what)
        assert checkpoint.read(newest.parent, INPUTS).step == 1, f"{what}, by seed {seed}"
        told = capsys.readouterr().err
        assert "a checkpoint is damaged" in told
        assert str(newest) in told
    assert len(kinds) == 12


@pytest.mark.fault("F16")
@pytest.mark.parametrize("fault", ["flipped", "no manifest", "emptied", "gone with its disk"])
def test_read_of_damaged_checkpoints_is_no_fresh_start(tmp_path, capsys, monkeypatch, fault):
    folder = tmp_path / "checkpoints"
    save_at(folder, 1, 2)
    for path in folder.iterdir():
        if fault == "flipped":
            damage(path, seed=0)
        elif fault == "gone with its disk":
            monkeypatch.setattr(checkpoint.files, "verify", failing(errno.EIO))
        else:
            for file in path.glob("manifest.json" if fault == "no manifest" else "*"):
                file.unlink()
    unreadable = fault == "gone with its disk"
    with pytest.raises(OSError if unreadable else CorruptError) as caught:
        checkpoint.read(folder, INPUTS)
    assert capsys.readouterr().err.count("a checkpoint is damaged") == 2
    assert unreadable or "bring one of them back" in caught.value.hint


@pytest.mark.fault("F16")
def test_read_of_an_unreadable_folder_is_no_fresh_start(tmp_path, monkeypatch):
    save_at(tmp_path / "checkpoints", 1)
    monkeypatch.setattr(os, "listdir", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.read(tmp_path / "checkpoints", INPUTS)


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number), "a file")

    return fail


def test_read_ignores_other_files(saved):
    (path,) = saved.iterdir()
    (path / ".nfs0000001").write_bytes(pickle.dumps(Canary(saved / "touched")))
    assert restore(saved)[2] == PROGRESS
    assert not (saved / "touched").exists()


class Canary:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def nested(depth):
    return b'{"step": 7, "history": ' + b"[" * depth + b"]" * depth + b"}"


def with_progress(**changes):
    return json.dumps({**PROGRESS.model_dump(by_alias=True), **changes}).encode()


def header(dtype, shape, offsets):
    """A safetensors file of one tensor without its data."""
    fields = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    content = json.dumps({"model.x": fields}).encode()
    return len(content).to_bytes(8, "little") + content


def safe(**tensors):
    return safetensors.torch.save(
        {name.replace("_", "."): value for name, value in tensors.items()}
    )


HOSTILE_PROGRESS = {
    "nested too deep": nested(100_000),
    "nested as deep as a reader goes": nested(980),
    "an unknown field": with_progress(__class__="os.system"),
    "a list": b"[]",
    "a word for a number": with_progress(seconds="soon"),
    "another step": with_progress(step=8),
    "a number without end": b'{"step": ' + b"7" * 10_000 + b"}",
    "not text": b"\xff\xfe\x00",
}
HOSTILE_TENSORS = {
    "a header of 8 EB": (2**63).to_bytes(8, "little") + b"{}",
    "a header longer than its file": (10**8).to_bytes(8, "little") + b"{}",
    "a tensor beyond the end": header("F32", [2**40], [0, 2**42]),
    "a tensor of no known type": header("EVIL", [0], [0, 0]),
    "tensors of another model": safe(model_x=torch.zeros(2), optimizer_0_step=torch.zeros(())),
    "names that are none": safe(optimizer_x_step=torch.zeros(1)),
    "a pickle": pickle.dumps,
    "a pickle of torch": lambda canary: torch_pickle(canary),
}


def torch_pickle(canary):
    buffer = io.BytesIO()
    torch.save(canary, buffer)
    return buffer.getvalue()


@pytest.mark.fault("F35")
@pytest.mark.parametrize("what", [*HOSTILE_PROGRESS, *HOSTILE_TENSORS])
def test_restore_refuses_hostile_content_and_executes_none(saved, what):
    (path,) = saved.iterdir()
    name = "progress.json" if what in HOSTILE_PROGRESS else "state.safetensors"
    content = {**HOSTILE_PROGRESS, **HOSTILE_TENSORS}[what]
    is_pickle = callable(content)
    (path / name).write_bytes(content(Canary(saved / "touched")) if is_pickle else content)
    files.write_manifest(path, "Checkpoint", inputs=INPUTS, facts={"step": 7})
    assert files.verify(path, "Checkpoint")
    state, (model, optimizer) = checkpoint.read(saved, INPUTS), build(1)
    with pytest.raises(CorruptError, match="not a checkpoint of citeflow"):
        checkpoint.restore(state, model=model, optimizer=optimizer)
    assert not (saved / "touched").exists()


@pytest.mark.fault("F35")
@pytest.mark.parametrize(
    "change",
    [
        {"facts": {}},
        {"facts": {"step": "7"}},
        {"facts": {"step": 10**30}},
        {"facts": None},
        {"files": {"../../state.safetensors": {"bytes": 1, "sha256": ""}}},
        {"files": {}},
        {"files": {"state.safetensors": None}},
        {"inputs": [1]},
        {"kind": "TrainedModel"},
    ],
)
def test_read_refuses_a_forged_manifest(saved, capsys, change):
    (path,) = saved.iterdir()
    manifest = files.read_json(path / "manifest.json") | change
    digest = files.sha256_of_json({key: manifest[key] for key in ("kind", "inputs", "files")})
    files.write_json(path / "manifest.json", {**manifest, "sha256": digest})
    with pytest.raises(CorruptError, match="every checkpoint is damaged"):
        checkpoint.read(saved, INPUTS)
    assert "a checkpoint is damaged" in capsys.readouterr().err


RETENTION = {
    "one": ([1], [], [1]),
    "in no order": ([30, 9, 100], [], [30, 100]),
    "several torn ones": ([1, 2, 3], [2, 7, 8], [1, 3]),
    "torn ones only, beside a new one": ([1, 2, 3], [1, 2], [3]),
}
"""Steps that are saved, those that are damaged before the last, and those that are left."""


@pytest.mark.fault("F18")
@pytest.mark.parametrize("case", RETENTION)
def test_save_keeps_two_whole_checkpoints_and_other_files(tmp_path, monkeypatch, case):
    folder, (steps, torn, left) = tmp_path / "checkpoints", RETENTION[case]
    aliens = make_aliens(folder)
    monkeypatch.setattr(checkpoint, "MAX_KEPT", 100)
    save_at(folder, *steps[:-1], *(step for step in torn if step not in steps))
    monkeypatch.undo()
    for step in torn:
        damage(folder / f"step-{step:08d}", seed=step)
    save_at(folder, steps[-1])
    assert names(folder) == sorted([*(f"step-{step:08d}" for step in left), *aliens])
    assert (folder / "step-00000003.bak" / "notes").read_text() == "mine"
    assert (folder / "a link" / "precious").exists()


def make_aliens(folder):
    """What somebody else may have put there."""
    folders = ["step-00000003.bak", "step-3", "step-000000030", "Step-00000004", ".snapshots"]
    paths = ["step-00000000", ".nfs00000001", *(f"{name}/notes" for name in folders)]
    for path in paths:
        files.write_text(folder / path, "mine")
    files.write_text(folder.parent / "elsewhere" / "precious", "mine")
    (folder / "a link").symlink_to(folder.parent / "elsewhere")
    return names(folder)


@pytest.mark.fault("F18")
def test_save_deletes_a_link_and_not_its_target(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000009").symlink_to(tmp_path / "elsewhere")
    save_at(tmp_path / "checkpoints", 1)
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    assert names(tmp_path / "elsewhere") == ["precious"]


@pytest.mark.fault("F18")
@pytest.mark.parametrize("call", ["replace", "rmdir"])
def test_save_survives_a_deletion_that_fails(tmp_path, monkeypatch, capsys, call):
    save_at(tmp_path, 1, 2)
    real, failed = getattr(os, call), []

    def fail(*args, **how):
        if "step-00000001" in str(args[0]):
            failed.append(call)
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), args[0])
        return real(*args, **how)

    monkeypatch.setattr(os, call, fail)
    save_at(tmp_path, 3)
    assert failed
    assert "could not be read or deleted why=Device or resource busy" in capsys.readouterr().err
    assert checkpoint.read(tmp_path, INPUTS).step == 3
    monkeypatch.undo()
    save_at(tmp_path, 4)
    files.delete_unfinished(tmp_path)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


@pytest.mark.fault("F18")
def test_save_deletes_nothing_that_cannot_be_read(tmp_path, monkeypatch):
    save_at(tmp_path, 1, 2)
    real = files.verify

    def verify(path, kind):
        return failing(errno.ESTALE)() if path.name == "step-00000001" else real(path, kind)

    monkeypatch.setattr(checkpoint.files, "verify", verify)
    monkeypatch.setattr(checkpoint, "MAX_KEPT", 3)
    save_at(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
