import pytest

from citeflow import config
from citeflow.errors import ConfigError, NotFoundError


def test_the_defaults_survive_yaml():
    assert config.from_yaml(config.to_yaml(config.Config())) == config.Config()


@pytest.mark.parametrize("preset", config.PRESETS)
def test_every_preset_is_valid(preset):
    assert config.from_yaml(config.to_yaml(config.load(preset=preset))) == config.load(preset=preset)


def test_later_layers_win_over_earlier_ones(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {lr: 0.1, batch: 7, clip: 2}\nmodel: {width: 16}")
    loaded = config.load(
        preset="seed", file=tmp_path / "a.yaml", text="train: {batch: 8, clip: 3}", overrides=["train.clip=4"]
    )
    assert (loaded.train.lr, loaded.train.batch, loaded.train.clip) == (0.1, 8, 4.0)
    assert (loaded.model.width, loaded.model.layers) == (16, 5)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epoch=3", "did you mean train.epochs"),
        ("tarin.epochs=3", "did you mean train"),
        ("train.epochs", "section.key=value"),
        ("epochs=3", "section.key=value"),
        ("train.batch=1.5", "a whole number"),
        ("train.batch=.inf", "a whole number"),
        ("train.batch=nan", "a whole number"),
        ("train.lr=.inf", "a number"),
        ("train.lr=yes", "a number"),
        ("train.lr=0", "above 0"),
        ("model.normalize=1", "true or false"),
        ("model.predictor=cosine", "one of dot, mlp, structural"),
        ("train.fanout=5", "one number per model.layers"),
        ("train.fanout=5,0", "at least 1"),
        ("train.lr={", "not YAML"),
        ("model.predictor=[a]", "one of"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(override, told):
    with pytest.raises(ConfigError, match=told):
        config.load(overrides=[override])


@pytest.mark.parametrize("text", ["[1]", "7", "{", "train: 3", "train:", "1: {a: 2}", "train: {1: 2}"])
def test_text_that_does_not_hold_sections_is_refused(text):
    with pytest.raises(ConfigError):
        config.from_yaml(text)


def test_numbers_may_be_written_as_in_python():
    loaded = config.load(overrides=["train.lr=1e-3", "train.fanout=10,5", "train.batch=4e3"])
    assert (loaded.train.lr, loaded.train.fanout, loaded.train.batch) == (0.001, (10, 5), 4000)


def test_a_settings_file_that_is_missing_or_no_text_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="none"):
        config.load(file=tmp_path / "none")
    (tmp_path / "image").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="image"):
        config.load(file=tmp_path / "image")
