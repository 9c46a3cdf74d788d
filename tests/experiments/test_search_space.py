import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from citeflow import config
from citeflow.config import Config
from citeflow.errors import ConfigError, MissingPackageError
from citeflow.experiments import search_space
from citeflow.tasks import TASKS, load_settings

BASE = Config()
MIXED = (
    "{train.lr: {low: 1e-3, high: 1, log: true}, model.num_layers: {low: 1, high: 3}, "
    "model.normalize: [true, false]}"
)


def read(text):
    return search_space.from_yaml(text, BASE)


def test_from_yaml_reads_the_default_space():
    space = read("")
    assert search_space.contains(space, BASE)
    for text in ("train.lr: {low: 0.02, high: 0.1}", "model.hidden_channels: [1, 2]"):
        assert not search_space.contains(read(text), BASE)
    assert search_space.values_of(BASE, space) == {
        "train.lr": 0.01,
        "train.num_negatives": 256,
        "model.dropout": 0.3,
        "model.hidden_channels": 128,
        "model.num_layers": 2,
    }


def test_from_yaml_reads_the_default_space_of_each_task():
    for name, task in TASKS.items():
        base = load_settings(name)
        space = search_space.from_yaml("", base)
        assert search_space.contains(space, base)
        again = search_space.from_yaml(search_space.to_yaml(space), base)
        assert again == space
        assert search_space.apply(base, search_space.values_of(base, space)).task == task.name
    with pytest.raises(ConfigError, match=r"model\.num_layers"):
        search_space.from_yaml("model.num_layers: [1, 2]", load_settings("images"))


def test_from_yaml_makes_the_distribution_of_each_type():
    assert read(MIXED) == {
        "train.lr": FloatDistribution(0.001, 1.0, log=True),
        "model.num_layers": IntDistribution(1, 3),
        "model.normalize": CategoricalDistribution((True, False)),
    }


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("train.lrr: [0.1, 0.2]", "unknown setting: train.lrr", "did you mean train.lr"),
        ("data.seed: [1, 2]", "not a setting to search: data.seed", "cannot be compared"),
        ("train.seed: [1, 2]", "not a setting to search: train.seed", "cannot be compared"),
        ("train.lr: 0.1", "nothing to choose from for train.lr: 0.1", "low: 0.001"),
        ("train.lr: {low: 0.1}", "missing: train.lr.high", ""),
        ("train.lr: {low: 0.1, high: 0.2, lgo: true}", "train.lr.lgo", "log"),
        ("train.lr: {low: 0.2, high: 0.1}", "train.lr.low is not below high: 0.2 and 0.1", ""),
        ("train.lr: {low: soon, high: 0.1}", "train.lr.low: soon", "must be a number"),
        ("train.lr: {low: 0.0, high: 0.1}", "train.lr: 0.0", "must be above 0"),
        ("model.dropout: {low: 0.0, high: 0.9, log: true}", "dropout.low: 0.0", "above 0 where"),
        ("model.num_layers: {low: 1, high: 2.5}", "num_layers.high: 2.5", "whole number"),
        ("model.hidden_channels: [64, 5000]", "model.hidden_channels: 5000", "4096"),
        ("model.hidden_channels: [64, 64]", "needs two or more different values", ""),
        ("model.predictor: [dot, cosine]", "model.predictor: cosine", "structural"),
        ("model.predictor: {low: dot, high: mlp}", "model.predictor has no bounds", "a list"),
        ("[train.lr]", "space must hold keys and values: list", ""),
        ("{}", "space must hold settings", "train.lr: "),
        ("train.lr: [0.1", "space is not YAML", ""),
    ],
)
def test_from_yaml_names_what_is_wrong(text, what, hint):
    with pytest.raises(ConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert what in message
    assert hint in message
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize("text", ["", MIXED])
def test_to_yaml_and_from_yaml_are_inverse(text):
    assert read(search_space.to_yaml(read(text))) == read(text)
    assert search_space.from_dict(search_space.to_dict(read(text)), BASE) == read(text)


def test_from_yaml_without_optuna_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna.distributions", None)
    with pytest.raises(MissingPackageError, match="optuna"):
        read("")


@given(st.floats(0.001, 10), st.booleans(), st.integers(1, 4096))
def test_options_of_a_trial_give_its_settings_back(lr, normalize, channels):
    values = {"train.lr": lr, "model.normalize": normalize, "model.hidden_channels": channels}
    overrides = search_space.as_options(values).replace("--set ", "").split()
    assert config.load(overrides=overrides) == search_space.apply(BASE, values)
