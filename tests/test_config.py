import pytest

from citeflow import config
from citeflow.errors import ConfigError, NotFoundError


def test_the_defaults_survive_yaml():
    assert config.from_yaml(config.to_yaml(config.Config())) == config.Config()


@pytest.mark.parametrize("preset", config.PRESETS)
def test_every_preset_is_valid(preset):
    assert config.from_yaml(config.to_yaml(config.load(preset=preset))) == config.load(
        preset=preset
    )


def test_later_layers_win_over_earlier_ones(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "train: {lr: 0.1, nodes_per_batch: 7, max_grad_norm: 2}\nmodel: {hidden_channels: 16}"
    )
    loaded = config.load(
        preset="seed",
        file=tmp_path / "a.yaml",
        text="train: {nodes_per_batch: 8, max_grad_norm: 3}",
        overrides=["train.max_grad_norm=4"],
    )
    assert (loaded.train.lr, loaded.train.nodes_per_batch, loaded.train.max_grad_norm) == (
        0.1,
        8,
        4.0,
    )
    assert (loaded.model.hidden_channels, loaded.model.num_layers) == (16, 5)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epoch=3", "did you mean train.epochs"),
        ("tarin.epochs=3", "did you mean train"),
        ("train.epochs", "section.key=value"),
        ("epochs=3", "section.key=value"),
        ("train.nodes_per_batch=1.5", "a whole number"),
        ("train.nodes_per_batch=.inf", "number"),
        ("train.nodes_per_batch=nan", "number"),
        ("train.lr=.inf", "number"),
        ("train.lr=yes", "number"),
        ("train.lr=0", "above 0"),
        ("model.normalize=1", "true or false"),
        ("model.predictor=cosine", "'dot', 'mlp' or 'structural'"),
        ("train.fanout=5", "unknown setting"),
        ("train.lr={", "not YAML"),
        ("model.predictor=[a]", "must be"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(override, told):
    with pytest.raises(ConfigError, match=told):
        config.load(overrides=[override])


@pytest.mark.parametrize(
    "text", ["[1]", "7", "{", "train: 3", "train:", "1: {a: 2}", "train: {1: 2}"]
)
def test_text_that_does_not_hold_sections_is_refused(text):
    with pytest.raises(ConfigError):
        config.from_yaml(text)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.holdout=0", "above 0"),
        ("data.holdout=0.51", "at most 0.5"),
        ("data.eval_negatives=0", "at least 1"),
        ("data.text_dim=1", "at least 2"),
        ("data.seed=-1", "at least 0"),
        ("data.unknown=keep", "'error' or 'drop'"),
        ("synthetic.num_papers=99", "at least 100"),
        ("synthetic.citations_per_paper=0.5", "at least 1"),
        ("synthetic.citations_per_paper=101", "at most 100"),
        ("synthetic.seed=-1", "at least 0"),
        ("model.structural_hops=1", "0, 2 or 3"),
        ("model.num_layers=-1", "at least 0"),
        ("model.num_layers=11", "at most 10"),
        ("model.hidden_channels=0", "at least 1"),
        ("model.hidden_channels=4097", "at most 4096"),
        ("model.dropout=1", "below 1"),
        ("model.dropout=-0.1", "at least 0"),
        ("train.epochs=0", "above 0"),
        ("train.minutes=-1", "at least 0"),
        ("train.nodes_per_batch=1", "at least 2"),
        ("train.num_negatives=0", "at least 1"),
        ("train.lr=-1", "above 0"),
        ("train.max_grad_norm=-1", "at least 0"),
        ("train.num_validations=0", "at least 1"),
        ("train.seed=-1", "at least 0"),
        ("train.seed=1" + "0" * 400, "a number"),
        ("train.lr=1" + "0" * 400, "number"),
        ("train.epochs=2020-13-45", "not YAML"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(override, told):
    with pytest.raises(ConfigError) as caught:
        config.load(overrides=[override])
    assert told in caught.value.hint
    assert override.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "data.holdout=0.5",
        "model.dropout=0.99",
        "model.num_layers=0",
        "train.max_grad_norm=0",
        "train.minutes=0",
        "train.seed=0",
    ],
)
def test_a_value_at_the_edge_of_its_range_is_taken(override):
    name, _, value = override.partition("=")
    section, _, key = name.partition(".")
    assert config.load(overrides=[override]).to_dict()[section][key] == float(value)


def test_every_setting_can_be_given_its_own_default_by_name():
    plain = config.Config().to_dict()
    overrides = [
        f"{name}={plain[name.split('.')[0]][name.split('.')[1]]}" for name in config.all_keys()
    ]
    assert config.load(overrides=overrides) == config.Config()


def test_values_far_from_the_defaults_survive_yaml():
    overrides = [
        "train.lr=1e-7",
        "train.seed=9007199254740993",
        "train.nodes_per_batch=2",
        "train.minutes=1e16",
    ]
    loaded = config.load(overrides=overrides)
    assert config.from_yaml(config.to_yaml(loaded)) == loaded
    assert loaded.train.seed == 9007199254740993


def test_numbers_in_a_file_may_be_written_as_in_python():
    loaded = config.from_yaml("train: {lr: 1e-3, nodes_per_batch: 4e3}")
    assert (loaded.train.lr, loaded.train.nodes_per_batch) == (0.001, 4000)


def test_numbers_may_be_written_as_in_python():
    loaded = config.load(overrides=["train.lr=1e-3", "train.nodes_per_batch=4e3"])
    assert (loaded.train.lr, loaded.train.nodes_per_batch) == (0.001, 4000)


def test_a_settings_file_that_is_missing_or_no_text_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="none"):
        config.load(file=tmp_path / "none")
    (tmp_path / "image").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="image"):
        config.load(file=tmp_path / "image")


@pytest.mark.parametrize("old", config.RENAMED)
def test_load_names_the_new_name_of_a_renamed_setting(old):
    new = config.RENAMED[old]
    assert new in config.all_keys()
    assert old not in config.all_keys()
    with pytest.raises(ConfigError) as caught:
        config.load(overrides=[f"{old}=5"])
    assert str(caught.value) == f"error: setting was renamed: {old}\nhint: it is now {new}"
