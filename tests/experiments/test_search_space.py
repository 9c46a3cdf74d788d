import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from citeflow import config
from citeflow.config import Config
from citeflow.errors import ConfigError
from citeflow.experiments import search_space as spaces
from citeflow.experiments.search_space import Choice, Range

BASE = Config()


def read(text):
    return spaces.from_yaml(text, BASE)


def test_the_default_space_holds_the_default_settings():
    space = read("")
    values = spaces.of(BASE, space)
    assert values == {
        "train.lr": 0.01,
        "train.num_negatives": 256,
        "model.dropout": 0.3,
        "model.hidden_channels": 128,
        "model.num_layers": 2,
    }
    assert all(values[parameter.key] in parameter for parameter in space)


def test_each_kind_of_setting_gets_the_kind_of_choice_that_it_has():
    numbers = "train.lr: {low: 1e-3, high: 1, log: true}, model.num_layers: {low: 1, high: 3}"
    text = f"{{{numbers}, model.normalize: [true, false]}}"
    assert read(text) == (
        Range(key="train.lr", low=0.001, high=1.0, is_whole=False, log=True),
        Range(key="model.num_layers", low=1, high=3, is_whole=True),
        Choice(key="model.normalize", values=(True, False)),
    )


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("train.lrr: [0.1, 0.2]", "unknown setting: train.lrr", "did you mean train.lr"),
        ("lr: [0.1, 0.2]", "unknown setting: lr", "train.lr"),
        ("data.seed: [1, 2]", "not a setting to search: data.seed", "can not be compared"),
        ("recovery.checkpoint_steps: [1, 2]", "not a setting to search", "can not be compared"),
        ("train.seed: [1, 2]", "not a setting to search: train.seed", "can not be compared"),
        ("train.lr: 0.1", "nothing to choose from for train.lr: 0.1", "low: 0.001"),
        ("train.lr: {low: 0.1}", "train.lr lacks a bound: high", "low: 0.001"),
        (
            "train.lr: {low: 0.1, hihg: 0.2}",
            "train.lr has no such bound: hihg",
            "did you mean high",
        ),
        ("train.lr: {low: 0.2, high: 0.1}", "train.lr, low is not below high: 0.2 and 0.1", ""),
        ("train.lr: {low: 0.1, high: 0.1}", "train.lr, low is not below high", ""),
        ("train.lr: {low: soon, high: 0.1}", "train.lr, low: soon", "must be a number"),
        ("train.lr: {low: 0.0, high: 0.1}", "train.lr: 0.0", "must be above 0"),
        (
            "model.dropout: {low: 0.0, high: 0.9, log: true}",
            "model.dropout, low: 0.0",
            "above 0 where log is true",
        ),
        ("model.dropout: {low: 0.0, high: 0.9, log: 1}", "model.dropout, log: 1", "true or false"),
        ("model.dropout: {low: 0.0, high: 1.0}", "model.dropout: 1.0", "below, 1"),
        (
            "model.num_layers: {low: 1, high: 2.5}",
            "model.num_layers, high: 2.5",
            "must be a whole number",
        ),
        ("model.hidden_channels: [64, 5000]", "model.hidden_channels: 5000", "must be 1 to 4096"),
        (
            "model.hidden_channels: [64, wide]",
            "model.hidden_channels: wide",
            "must be a whole number",
        ),
        (
            "model.hidden_channels: [64]",
            "model.hidden_channels needs two or more different values",
            "low: 0.001",
        ),
        (
            "model.hidden_channels: [64, 64]",
            "model.hidden_channels needs two or more different values",
            "",
        ),
        (
            "model.hidden_channels: []",
            "model.hidden_channels needs two or more different values",
            "",
        ),
        (
            "model.predictor: [dot, cosine]",
            "model.predictor: cosine",
            "one of dot, mlp, structural",
        ),
        (
            "model.predictor: {low: dot, high: mlp}",
            "model.predictor has no bounds",
            "'dot', 'mlp', 'structural'",
        ),
        ("model.normalize: {low: 0, high: 1}", "model.normalize has no bounds", "[true, false]"),
        ("[train.lr]", "space must hold settings: list", "train.lr: "),
        ("{}", "space must hold settings", "train.lr: "),
        ("train.lr: [0.1", "space is not YAML", ""),
    ],
)
def test_a_wrong_space_is_told_in_one_line(text, what, hint):
    with pytest.raises(ConfigError) as caught:
        read(text)
    told = str(caught.value)
    assert what in told
    assert hint in told
    assert len(told.splitlines()) <= 2


@pytest.mark.parametrize(
    "text", ["", "{model.normalize: [true, false], train.lr: {low: 0.1, high: 1, log: true}}"]
)
def test_a_space_is_the_same_after_it_was_written_and_read(text):
    assert read(spaces.to_yaml(read(text))) == read(text)
    assert spaces.from_dict(spaces.to_dict(read(text)), BASE) == read(text)


def test_the_settings_of_a_trial_are_the_base_with_its_values():
    base = config.load(overrides=["train.epochs=3"])
    made = spaces.configured(base, {"train.lr": 0.5, "model.hidden_channels": 32})
    assert (made.train.lr, made.model.hidden_channels, made.train.epochs) == (0.5, 32, 3.0)
    assert base.train.lr == BASE.train.lr


@given(st.floats(0.001, 10), st.booleans(), st.integers(1, 4096))
def test_the_options_of_a_trial_give_its_settings_back(lr, normalize, width):
    values = {"train.lr": lr, "model.normalize": normalize, "model.hidden_channels": width}
    overrides = spaces.as_options(values).replace("--set ", "").split()
    assert config.load(overrides=overrides) == spaces.configured(BASE, values)


def test_the_plain_values_are_yaml_that_a_person_would_write():
    assert yaml.safe_load(spaces.to_yaml(read("model.hidden_channels: [64, 128]"))) == {
        "model.hidden_channels": [64, 128]
    }
