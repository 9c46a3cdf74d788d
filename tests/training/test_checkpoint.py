"""What is saved comes back whole, belongs to one run only, and is never half there."""

import dataclasses
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

from citeflow import config, files
from citeflow.config import ModelConfig
from citeflow.errors import ConfigError, CorruptError
from citeflow.evaluation.trained_model import inputs_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.training import checkpoint
from citeflow.training.checkpoint import Progress

INPUTS = {"PreparedGraph": "a" * 64, "config": "b" * 64, "workers": 2}
DAMAGES = 200
PROGRESS = Progress(
    step=7,
    seconds=1.5,
    positives=700,
    best_mrr=0.25,
    history=[{"step": 5, "loss": 0.1 + 0.2}],
    evaluations=[{"step": 6, "valid_mrr": 0.25}],
)


def new(seed=0):
    torch.manual_seed(seed)
    model = LinkPredictor(4, 3, ModelConfig(hidden_channels=8), scaled=True)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def step(model, optimizer):
    """One step, the same whenever it is taken."""
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
    model, optimizer = new()
    step(model, optimizer)
    step(model, optimizer)
    best = weights(model)
    step(model, optimizer)
    save(tmp_path / "checkpoints", model, optimizer, best)
    return tmp_path / "checkpoints"


def save(folder, model, optimizer, best, **changes):
    given = {"progress": PROGRESS, "inputs": INPUTS, **changes}
    checkpoint.save(folder, model=model, optimizer=optimizer, best=best, **given)


def save_at(folder, *steps):
    """Checkpoints of several steps."""
    for number in steps:
        save(folder, *new(number), {}, progress=Progress(step=number))


def restore(folder, inputs=INPUTS, seed=1):
    model, optimizer = new(seed)
    progress, best = checkpoint.restore(
        checkpoint.read(folder, inputs), model=model, optimizer=optimizer
    )
    return model, optimizer, progress, best


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_model_best_model_and_progress_come_back(saved):
    before, optimizer = new()
    step(before, optimizer)
    step(before, optimizer)
    model, _, progress, best = restore(saved)
    assert is_same(best, weights(before))
    step(before, optimizer)
    assert is_same(weights(model), weights(before))
    assert progress == PROGRESS


def test_the_optimizer_goes_on_with_the_moments_that_it_had(saved):
    whole, of_whole = new()
    for _ in range(5):
        step(whole, of_whole)
    model, optimizer, _, _ = restore(saved)
    step(model, optimizer)
    step(model, optimizer)
    assert is_same(weights(model), weights(whole))


def test_no_checkpoint_is_a_fresh_start_that_changes_nothing(tmp_path):
    model, optimizer, progress, best = restore(tmp_path / "none", seed=1)
    assert (progress, best) == (Progress(), {})
    assert is_same(weights(model), weights(new(1)[0]))
    assert not optimizer.state


def test_a_checkpoint_before_the_first_evaluation_has_no_best_model(tmp_path):
    model, optimizer = new()
    save(tmp_path / "checkpoint", model, optimizer, {}, progress=Progress(step=1))
    _, _, progress, best = restore(tmp_path / "checkpoint")
    assert (progress.best_mrr, best) == (-1.0, {})


def test_the_newest_checkpoint_is_the_one_that_comes_back(saved):
    model, optimizer = new(2)
    save(saved, model, optimizer, {}, progress=Progress(step=9))
    restored, _, progress, best = restore(saved)
    assert (progress.step, best) == (9, {})
    assert is_same(weights(restored), weights(model))
    assert names(saved) == ["step-00000007", "step-00000009"]


def test_a_step_that_is_saved_again_takes_the_place_of_the_one_before(saved):
    model, optimizer = new(2)
    save(saved, model, optimizer, {})
    assert is_same(weights(restore(saved)[0]), weights(model))
    assert names(saved) == ["step-00000007"]


def test_a_checkpoint_holds_tensors_and_json_and_nothing_that_runs(saved):
    (place,) = saved.iterdir()
    assert names(place) == ["manifest.json", "progress.json", "state.safetensors"]
    assert files.verify(place, "Checkpoint").facts == {"step": 7}


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("key", "now"), [("PreparedGraph", "c" * 64), ("config", "d" * 64), ("workers", 3)]
)
def test_a_checkpoint_of_another_graph_configuration_or_number_of_workers_is_refused(
    saved, figure, key, now
):
    with pytest.raises(ConfigError, match="other data, settings or workers") as caught:
        restore(saved, inputs={**INPUTS, key: now})
    assert caught.value.value == f"{key} {INPUTS[key]}, now {now}"
    assert "another run name" in caught.value.hint
    figure(refused=1, named_with_both_values=1)


@pytest.mark.fault("F13")
def test_all_that_differs_is_named(saved, figure):
    now = dict.fromkeys(INPUTS, "e" * 64)
    with pytest.raises(ConfigError) as caught:
        restore(saved, inputs=now)
    assert caught.value.value.split(", now ")[1:-1] == [
        f"{'e' * 64}, config {'b' * 64}",
        f"{'e' * 64}, workers 2",
    ]
    figure(refused=1)


@pytest.mark.fault("F13")
def test_a_run_goes_on_with_other_settings_of_its_recovery_and_with_no_others(prepared, figure):
    graph = PreparedGraph.open(prepared.graph)

    def inputs(*overrides, workers=2):
        return inputs_of(graph, config.load(overrides=[*prepared.settings, *overrides]), workers)

    settings = [f"recovery.{field.name}=7" for field in dataclasses.fields(config.RecoveryConfig)]
    assert len(settings) >= 2
    assert inputs(*settings) == inputs()
    assert inputs("train.lr=0.5") != inputs() != inputs("model.hidden_channels=8")
    assert inputs(workers=3) != inputs()
    figure(settings_that_may_differ=len(settings))


def damage(place, seed):
    """Flip a bit, cut, take away or lengthen one of the files; returns what was done to which."""
    random = np.random.default_rng(seed)
    file = place / ("manifest.json", "progress.json", "state.safetensors")[seed % 3]
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
def test_two_hundred_damages_are_found_and_told_and_the_checkpoint_before_is_used(
    tmp_path, capsys, figure
):
    save_at(tmp_path / "checkpoints", 1, 2)
    newest, whole = tmp_path / "checkpoints" / "step-00000002", tmp_path / "whole"
    shutil.copytree(newest, whole)
    assert checkpoint.read(newest.parent, INPUTS).step == 2
    detected, kinds = 0, set()
    for seed in range(DAMAGES):
        shutil.rmtree(newest)
        shutil.copytree(whole, newest)
        what = damage(newest, seed)
        kinds.add(what)
        assert checkpoint.read(newest.parent, INPUTS).step == 1, f"{what}, by seed {seed}"
        told = capsys.readouterr().err
        assert "a checkpoint is damaged" in told
        assert str(newest) in told
        detected += 1
    assert len(kinds) == 12
    figure(damages=DAMAGES, detected=detected)


@pytest.mark.fault("F16")
@pytest.mark.parametrize("fault", ["flipped", "no manifest", "emptied", "gone with its disk"])
def test_where_all_are_damaged_it_is_an_error_and_no_fresh_start(
    tmp_path, capsys, monkeypatch, figure, fault
):
    folder = tmp_path / "checkpoints"
    save_at(folder, 1, 2)
    for place in folder.iterdir():
        if fault == "flipped":
            damage(place, seed=0)
        elif fault == "gone with its disk":
            monkeypatch.setattr(checkpoint.files, "verify", failing(errno.EIO))
        else:
            for file in place.glob("manifest.json" if fault == "no manifest" else "*"):
                file.unlink()
    unreadable = fault == "gone with its disk"
    kind, words = (
        (OSError, "Input/output error")
        if unreadable
        else (CorruptError, "every checkpoint is damaged")
    )
    with pytest.raises(kind, match=words) as caught:
        checkpoint.read(folder, INPUTS)
    assert capsys.readouterr().err.count("a checkpoint is damaged") == 2
    assert unreadable or "bring one of them back" in caught.value.hint
    figure(all_damaged=1, fresh_starts=0)


@pytest.mark.fault("F16")
def test_a_folder_that_can_not_be_read_is_an_error_and_no_fresh_start(
    tmp_path, monkeypatch, figure
):
    save_at(tmp_path / "checkpoints", 1)
    monkeypatch.setattr(os, "listdir", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.read(tmp_path / "checkpoints", INPUTS)
    figure(all_damaged=1, fresh_starts=0)


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number), "a file")

    return fail


def test_a_file_more_in_a_checkpoint_is_never_looked_at(saved):
    (place,) = saved.iterdir()
    (place / ".nfs0000001").write_bytes(pickle.dumps(Canary(saved / "touched")))
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
    return json.dumps({**dataclasses.asdict(PROGRESS), **changes}).encode()


HOSTILE = {
    "nested too deep": ("progress.json", lambda _: nested(100_000)),
    "nested as deep as a reader goes": ("progress.json", lambda _: nested(980)),
    "an unknown field": ("progress.json", lambda _: with_progress(__class__="os.system")),
    "a list": ("progress.json", lambda _: b"[]"),
    "a word for a number": ("progress.json", lambda _: with_progress(seconds="soon")),
    "another step": ("progress.json", lambda _: with_progress(step=8)),
    "a number without end": ("progress.json", lambda _: b'{"step": ' + b"7" * 10_000 + b"}"),
    "not text": ("progress.json", lambda _: b"\xff\xfe\x00"),
    "a header of 8 EB": ("state.safetensors", lambda _: (2**63).to_bytes(8, "little") + b"{}"),
    "a header longer than its file": (
        "state.safetensors",
        lambda _: (10**8).to_bytes(8, "little") + b"{}",
    ),
    "a tensor beyond the end": (
        "state.safetensors",
        lambda _: tensors(
            {"model.x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
        ),
    ),
    "a tensor of no known type": (
        "state.safetensors",
        lambda _: tensors({"model.x": {"dtype": "EVIL", "shape": [0], "data_offsets": [0, 0]}}),
    ),
    "tensors of another model": (
        "state.safetensors",
        lambda _: safetensors.torch.save(
            {"model.x": torch.zeros(2), "optimizer.0.step": torch.zeros(())}
        ),
    ),
    "names that are none": (
        "state.safetensors",
        lambda _: safetensors.torch.save({"optimizer.x.step": torch.zeros(1)}),
    ),
    "a pickle": ("state.safetensors", lambda canary: pickle.dumps(canary)),
    "a pickle of torch": ("state.safetensors", lambda canary: torch_pickle(canary)),
}


def tensors(header):
    content = json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content


def torch_pickle(canary):
    buffer = io.BytesIO()
    torch.save(canary, buffer)
    return buffer.getvalue()


@pytest.mark.fault("F35")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_content_is_refused_although_its_manifest_fits_and_is_not_executed(
    saved, figure, what
):
    (place,) = saved.iterdir()
    name, make = HOSTILE[what]
    (place / name).write_bytes(make(Canary(saved / "touched")))
    files.write_manifest(place, "Checkpoint", inputs=INPUTS, facts={"step": 7})
    assert files.verify(place, "Checkpoint")
    state, (model, optimizer) = checkpoint.read(saved, INPUTS), new(1)
    with pytest.raises(CorruptError, match="not a checkpoint of citeflow"):
        checkpoint.restore(state, model=model, optimizer=optimizer)
    assert not (saved / "touched").exists()
    figure(hostile_files=1, executed=0)


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
def test_a_manifest_that_says_something_else_is_a_damaged_checkpoint(saved, capsys, figure, change):
    (place,) = saved.iterdir()
    manifest = files.read_json(place / "manifest.json") | change
    digest = files.sha256_of_json({key: manifest[key] for key in ("kind", "inputs", "files")})
    files.write_json(place / "manifest.json", {**manifest, "sha256": digest})
    with pytest.raises(CorruptError, match="every checkpoint is damaged"):
        checkpoint.read(saved, INPUTS)
    assert "a checkpoint is damaged" in capsys.readouterr().err
    figure(hostile_files=1, executed=0)


@pytest.mark.fault("F35")
def test_a_canary_would_be_noticed(saved):
    pickle.loads(pickle.dumps(Canary(saved / "touched")))
    assert (saved / "touched").exists()


RETENTION = {
    "few": ([1], [], [1]),
    "two": ([1, 2], [], [1, 2]),
    "many": ([1, 2, 3, 4, 5], [], [4, 5]),
    "in no order": ([30, 9, 100], [], [30, 100]),
    "a torn newer one": ([1, 2, 3], [9], [2, 3]),
    "several torn ones": ([1, 2, 3], [2, 7, 8], [1, 3]),
    "torn ones only, beside a new one": ([1, 2, 3], [1, 2], [3]),
}
"""Steps that are saved, those that are damaged before the last, and those that are left."""


@pytest.mark.fault("F18")
@pytest.mark.parametrize("case", RETENTION)
def test_the_newest_two_whole_checkpoints_are_kept_and_nothing_of_others_is_touched(
    tmp_path, monkeypatch, figure, case
):
    folder, (steps, torn, left) = tmp_path / "checkpoints", RETENTION[case]
    folder.mkdir()
    monkeypatch.setattr(checkpoint, "KEPT", 100)
    save_at(folder, *steps[:-1], *(step for step in torn if step not in steps))
    monkeypatch.undo()
    for step in torn:
        damage(folder / f"step-{step:08d}", seed=step)
    aliens = [alien.name for alien in make_aliens(folder)]
    save_at(folder, steps[-1])
    expected = [f"step-{step:08d}" for step in left]
    assert names(folder) == sorted([*expected, *aliens])
    assert (folder / "step-00000003.bak" / "notes").read_text() == "mine"
    assert (folder / "a link" / "precious").exists()
    figure(cases=1, survivors_as_expected=1, strangers_kept=len(aliens))


def make_aliens(folder):
    """What somebody else may have put there."""
    for name in (
        "step-00000003.bak",
        "step-3",
        "step-000000030",
        "Step-00000004",
        "best",
        ".snapshots",
    ):
        (folder / name).mkdir()
        (folder / name / "notes").write_text("mine")
        yield folder / name
    for name in ("step-00000000", "notes.txt", ".nfs00000001"):
        (folder / name).write_text("mine")
        yield folder / name
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    (folder / "a link").symlink_to(elsewhere)
    yield folder / "a link"


@pytest.mark.fault("F18")
def test_a_link_in_the_place_of_a_checkpoint_goes_and_what_it_leads_to_stays(tmp_path, figure):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000009").symlink_to(tmp_path / "elsewhere")
    save_at(tmp_path / "checkpoints", 1)
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    assert names(tmp_path / "elsewhere") == ["precious"]
    figure(cases=1, survivors_as_expected=1)


@pytest.mark.fault("F18")
@pytest.mark.parametrize("call", ["replace", "rmdir"])
def test_a_deletion_that_fails_is_told_and_the_save_is_none_the_worse(
    tmp_path, monkeypatch, capsys, figure, call
):
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
    figure(cases=1, survivors_as_expected=1, deletions_failed=len(failed))


@pytest.mark.fault("F18")
def test_a_checkpoint_that_can_not_be_read_just_now_is_not_deleted(tmp_path, monkeypatch, figure):
    save_at(tmp_path, 1, 2)
    real = files.verify

    def verify(place, kind):
        return failing(errno.ESTALE)() if place.name == "step-00000001" else real(place, kind)

    monkeypatch.setattr(checkpoint.files, "verify", verify)
    monkeypatch.setattr(checkpoint, "KEPT", 3)
    save_at(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
    figure(cases=1, survivors_as_expected=1)
