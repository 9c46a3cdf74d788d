"""The settings of a run: four frozen sections, read from YAML and from `--set section.key=value`, checked once.

What does not belong here: where things lie and what starts them (`--data-root`, `--out`, `--workers`), which are
arguments of the commands, because the same settings must give the same model wherever they run.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from citeflow.errors import ConfigError, NotFoundError
from citeflow.values import convert, nearest, parse_value


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How a dataset becomes a PreparedGraph."""

    unknown: Literal["error", "drop"] = "error"
    """What to do with a citation of a paper that is not in the list of papers."""

    holdout: float = 0.05
    """With dates: the share of papers, the newest ones, that give one citation each to validation and to test.
    Without dates: the share of citations in each of the two. Ignored where a dataset has its own split."""

    negatives: int = 1000
    """Papers that each held-out citation is ranked against; fewer where the graph has fewer."""

    text_width: int = 128
    """Width of the vector made from title and abstract where a folder has no features."""

    seed: int = 0
    """Seed of the split."""

    def __post_init__(self) -> None:
        _require(0 < self.holdout <= 0.5, "data.holdout", self.holdout, "a share above 0 and up to 0.5")
        _require(self.negatives >= 1, "data.negatives", self.negatives, "at least 1")
        _require(self.text_width >= 2, "data.text_width", self.text_width, "at least 2")
        _require(self.seed >= 0, "data.seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticConfig:
    """The shape of the dataset named `synthetic`."""

    papers: int = 20_000
    """Number of papers; ogbl-citation2 has 2,927,963."""

    citations_per_paper: float = 10.44
    """Mean length of a reference list; ogbl-citation2 has 10.44."""

    seed: int = 0
    """Seed of the graph."""

    def __post_init__(self) -> None:
        _require(self.papers >= 100, "synthetic.papers", self.papers, "at least 100")
        _require(self.seed >= 0, "synthetic.seed", self.seed, "0 or more")
        _require(
            1 <= self.citations_per_paper <= 100, "synthetic.citations_per_paper", self.citations_per_paper, "1-100"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A GraphSAGE encoder and a link predictor."""

    features: Literal["given", "ones"] = "given"
    """Input of the encoder: the papers' own features (a constant where there are none), or always a constant."""

    layers: int = 2
    """Number of SAGEConv layers; 0 leaves the graph out (a perceptron on the features alone)."""

    width: int = 128
    """Width of every hidden layer and of the embedding."""

    aggregation: Literal["mean", "add", "max"] = "mean"
    """How SAGEConv joins the neighbours of a paper."""

    normalize: bool = False
    """L2-normalise the output of every layer, as SAGEConv's `normalize`."""

    dropout: float = 0.3
    """Share of hidden values that training drops behind each layer but the last."""

    predictor: Literal["dot", "mlp", "structural"] = "structural"
    """What scores a pair: a dot product, a perceptron on the Hadamard product, or the embedding joined with the pair's
    common-neighbour evidence."""

    evidence_hops: int = 3
    """Longest path between the two papers that `structural` looks for: 2 or 3; 0 leaves out all evidence but what the
    papers say by themselves (citation count, age)."""

    def __post_init__(self) -> None:
        _require(self.evidence_hops in (0, 2, 3), "model.evidence_hops", self.evidence_hops, "0, 2 or 3")
        _require(0 <= self.layers <= 10, "model.layers", self.layers, "0 to 10")
        _require(1 <= self.width <= 4096, "model.width", self.width, "1 to 4096")
        _require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 up to, but below, 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: float = 10.0
    """Passes over the training citations, each without those between papers that it puts into different parts; a
    fraction of a pass is allowed. Not used where `minutes` is set."""

    minutes: float = 0.0
    """Time to train, evaluation within training included; 0 trains for `epochs`."""

    papers: int = 20_000
    """About how many papers a worker takes in a step; fewer where that is over a sixth of the graph."""

    negatives: int = 256
    """Random papers of a step, per worker, that all its citations are compared with; 16 at most for `mlp`."""

    loss: Literal["contrastive", "bce"] = "contrastive"
    """Softmax of a citation against the shared negatives, or binary cross-entropy."""

    lr: float = 0.01
    """Highest learning rate of Adam; it warms up, then falls along a cosine."""

    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""

    seed: int = 0
    """Seed of weights, batches, negatives and dropout."""

    evaluations: int = 10
    """How often the validation MRR is measured during training."""

    def __post_init__(self) -> None:
        _require(self.epochs > 0, "train.epochs", self.epochs, "above 0")
        _require(self.minutes >= 0, "train.minutes", self.minutes, "0 or more")
        _require(self.papers >= 2, "train.papers", self.papers, "at least 2")
        _require(self.negatives >= 1, "train.negatives", self.negatives, "at least 1")
        _require(self.lr > 0, "train.lr", self.lr, "above 0")
        _require(self.clip >= 0, "train.clip", self.clip, "0 or more")
        _require(self.evaluations >= 1, "train.evaluations", self.evaluations, "at least 1")
        _require(self.seed >= 0, "train.seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryConfig:
    """What a fault may cost; none of it decides what model comes out, and a run may go on with other values."""

    checkpoint_steps: int = 100
    """Steps between two checkpoints, and so the most that are taken again after a fault."""

    step_timeout_s: float = 60.0
    """Seconds that a worker waits for another one within a step, before it takes it for lost."""

    def __post_init__(self) -> None:
        _require(self.checkpoint_steps >= 1, "recovery.checkpoint_steps", self.checkpoint_steps, "at least 1")
        _require(1 <= self.step_timeout_s <= 3600, "recovery.step_timeout_s", self.step_timeout_s, "1 to 3600")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that decides what model comes out, besides the data and the number of workers; and `recovery`."""

    data: DataConfig = field(default_factory=DataConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "synthetic": SyntheticConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "recovery": RecoveryConfig,
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "seed": {
        "model": {
            "features": "ones",
            "layers": 5,
            "width": 256,
            "aggregation": "add",
            "normalize": True,
            "dropout": 0.5,
            "predictor": "dot",
        },
        "train": {"loss": "bce", "papers": 40_000},
    },
}
"""`seed` is the published student model that citeflow comes from, github.com/0M1J/kubeflow-GNN, ogbl/train.py."""


def load(*, preset: str = "default", file: Path | None = None, text: str = "", overrides: Iterable[str] = ()) -> Config:
    """Read settings: the preset, then the file over it, then YAML text, then `section.key=value` over all of them.

    Raises:
        ConfigError: a name is unknown (the nearest right one is in the hint), or a value is out of range.
        NotFoundError: there is no such file.
    """
    if preset not in PRESETS:
        raise ConfigError("unknown preset", preset, hint=f"one of {', '.join(PRESETS)}")
    layers: list[Mapping[str, Any]] = [PRESETS[preset]]
    if file is not None:
        layers.append(_read_yaml(file))
    layers.append(_parse_yaml(text, "settings"))
    layers.extend(_parse_override(text) for text in overrides)
    return from_dict(_merge(layers))


def from_yaml(text: str) -> Config:
    """Read settings from YAML text, such as a pipeline parameter."""
    return from_dict(_parse_yaml(text, "settings"))


def to_yaml(config: Config) -> str:
    """All settings as YAML text; `from_yaml` gives them back."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, default_flow_style=False)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Build settings from nested plain values, each one checked and converted to its field's type."""
    sections = {name: _build_section(name, entries) for name, entries in values.items()}
    return Config(**sections)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The same settings but for some, given by section and key."""
    return from_dict(_merge([config.to_dict(), changes]))


def _build_section(name: str, entries: object) -> Any:
    if name not in SECTIONS:
        raise ConfigError("unknown section", name, hint=nearest(str(name), SECTIONS))
    if not isinstance(entries, Mapping):
        raise ConfigError(f"section {name} must hold keys and values", entries)
    hints = typing.get_type_hints(SECTIONS[name])
    for key in entries:
        if key not in hints:
            raise ConfigError("unknown setting", f"{name}.{key}", hint=nearest(f"{name}.{key}", all_keys()))
    return SECTIONS[name](**{key: convert(f"{name}.{key}", value, hints[key]) for key, value in entries.items()})


def all_keys() -> list[str]:
    """Every setting's full name, such as `train.epochs`."""
    return [f"{name}.{item.name}" for name, section in SECTIONS.items() for item in dataclasses.fields(section)]


def _parse_override(text: str) -> Mapping[str, Any]:
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        raise ConfigError("not of the form section.key=value", text, hint="for example --set train.epochs=3")
    return {section: {name: parse_value(key, value)}}


def _read_yaml(file: Path) -> Mapping[str, Any]:
    try:
        return _parse_yaml(file.read_text(), str(file))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError("no such settings file", file) from None
    except UnicodeDecodeError:
        raise ConfigError("not a text file", file) from None


def _parse_yaml(text: str, origin: str) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin} is not YAML", str(error).splitlines()[0]) from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"{origin} must hold sections", type(values).__name__)
    return values


def _merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for section, entries in layer.items():
            old = merged.get(section, {})
            mergeable = isinstance(old, Mapping) and isinstance(entries, Mapping)
            merged[section] = {**old, **entries} if mergeable else entries
    return merged


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(name, value, hint=f"must be {wanted}")
