"""What is saved comes back whole, belongs to one run only, and is never half there."""

import pytest
import torch

from citeflow import files
from citeflow.config import ModelConfig
from citeflow.errors import ConfigError, CorruptError
from citeflow.learning.model import LinkPredictor
from citeflow.training import checkpoint
from citeflow.training.checkpoint import Progress

INPUTS = {"PreparedGraph": "a" * 64, "config": "b" * 64, "workers": 2}
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
    model = LinkPredictor(4, 3, ModelConfig(width=8), scaled=True)
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
    save(tmp_path / "checkpoint", model, optimizer, best)
    return tmp_path / "checkpoint"


def save(folder, model, optimizer, best, **changes):
    given = {"progress": PROGRESS, "inputs": INPUTS, **changes}
    checkpoint.save(folder, model=model, optimizer=optimizer, best=best, **given)


def load(folder, inputs=INPUTS, seed=1):
    model, optimizer = new(seed)
    progress, best = checkpoint.load(folder, model=model, optimizer=optimizer, inputs=inputs)
    return model, optimizer, progress, best


def test_model_best_model_and_progress_come_back(saved):
    before, optimizer = new()
    step(before, optimizer)
    step(before, optimizer)
    model, _, progress, best = load(saved)
    assert is_same(best, weights(before))
    step(before, optimizer)
    assert is_same(weights(model), weights(before))
    assert progress == PROGRESS


def test_the_optimizer_goes_on_with_the_moments_that_it_had(saved):
    whole, of_whole = new()
    for _ in range(5):
        step(whole, of_whole)
    model, optimizer, _, _ = load(saved)
    step(model, optimizer)
    step(model, optimizer)
    assert is_same(weights(model), weights(whole))


def test_no_checkpoint_is_a_fresh_start_that_changes_nothing(tmp_path):
    model, optimizer, progress, best = load(tmp_path / "none", seed=1)
    assert (progress, best) == (Progress(), {})
    assert is_same(weights(model), weights(new(1)[0]))
    assert not optimizer.state


def test_a_checkpoint_before_the_first_evaluation_has_no_best_model(tmp_path):
    model, optimizer = new()
    save(tmp_path / "checkpoint", model, optimizer, {}, progress=Progress(step=1))
    _, _, progress, best = load(tmp_path / "checkpoint")
    assert (progress.best_mrr, best) == (-1.0, {})


def test_a_later_checkpoint_takes_the_place_of_the_one_before(saved):
    model, optimizer = new(2)
    save(saved, model, optimizer, {}, progress=Progress(step=9))
    loaded, _, progress, best = load(saved)
    assert (progress.step, best) == (9, {})
    assert is_same(weights(loaded), weights(model))
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("key", INPUTS)
def test_a_checkpoint_of_another_graph_configuration_or_number_of_workers_is_refused(saved, key):
    with pytest.raises(ConfigError, match="other data, settings or workers") as caught:
        load(saved, inputs={**INPUTS, key: "another"})
    assert "another run name" in caught.value.hint


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["a changed byte", "cut", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name_and_nothing_is_loaded(saved, name, damage):
    content = bytearray((saved / name).read_bytes())
    if damage == "missing":
        (saved / name).unlink()
    else:
        content[len(content) // 2] ^= 1
        (saved / name).write_bytes(content if damage == "a changed byte" else content[:-1])
    model, optimizer = new(1)
    with pytest.raises(CorruptError, match=name) as caught:
        checkpoint.load(saved, model=model, optimizer=optimizer, inputs=INPUTS)
    assert is_same(weights(model), weights(new(1)[0]))
    assert not optimizer.state
    assert "delete" in caught.value.hint


def test_a_checkpoint_holds_tensors_and_json_and_nothing_that_runs(saved):
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".json", ".safetensors"]
    assert files.verify(saved, "Checkpoint")["facts"] == {"step": 7}
