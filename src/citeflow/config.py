"""The settings of a run, read from a preset, YAML and `--set section.key=value`, and checked once.

What does not belong here: where things lie and what starts them (`--data-root`, `--out`,
`--workers`). These are arguments of the commands, because the same settings must give the same
model wherever they run.

The doc string under a field is its help; docs/settings.md is generated from it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field, JsonValue

from citeflow.errors import ConfigError, NotFoundError
from citeflow.models.predictors import PREDICTORS
from citeflow.utils import records
from citeflow.utils.records import Bool, Float, Int, OptionalStr, Record

if TYPE_CHECKING:
    PredictorName = str
else:
    # One of the registry's names; a type checker wants them spelled out.
    PredictorName = Literal[tuple(PREDICTORS)]

Precision = Literal["float32", "bfloat16"]
"""Types in which a step multiplies matrices."""


class DataConfig(Record):
    """Settings of the preparation of a dataset."""

    unknown: Literal["error", "drop"] = "error"
    """Treatment of a citation of a paper that is not in the list of papers."""

    without_date: Literal["refuse", "drop", "undated"] = "refuse"
    """Treatment of papers without a date where others have one: an error; left out, with their
    citations; or kept, while no citation of theirs is held out and they are no candidates. Not
    `refuse`: dates that look like placeholders, such as 9999-01-01, count as none, too."""

    holdout: Float = Field(0.05, gt=0, le=0.5)
    """With dates: the share of papers, the newest ones, that give one citation each to validation
    and to test. Without dates: the share of citations in each of the two. Ignored where a dataset
    has its own split."""

    eval_negatives: Int = Field(1000, ge=1)
    """Papers that each held-out citation is ranked against; fewer where the graph has fewer."""

    hard_candidates: Int = Field(500, ge=1)
    """Papers that each source is ranked against in the protocol `hard`: those nearest to it by
    common neighbors and by features, and the most cited."""

    time_cut: Bool = False
    """Score each source in a graph without the citations that newer papers have made, as of the day
    on which it was written. OGB's protocol sees them."""

    text_dim: Int = Field(128, ge=2)
    """Dimensions of the vector made from title and abstract where a folder has no features."""

    num_similar: Int = Field(20, ge=0, le=100)
    """Papers that each paper is linked with, for `structural`: those of the same time whose
    features are most similar. 0 links none."""

    seed: Int = Field(0, ge=0)
    """Seed of the split and of the search for similar papers."""


class SyntheticConfig(Record):
    """The shape of the dataset named `synthetic`."""

    num_papers: Int = Field(20_000, ge=100)
    """Number of papers; ogbl-citation2 has 2,927,963."""

    citations_per_paper: Float = Field(10.44, ge=1, le=100)
    """Mean length of a reference list; ogbl-citation2 has 10.44."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the features; float16 takes half of the disk, as large datasets do."""

    seed: Int = Field(0, ge=0)
    """Seed of the graph."""


class ModelConfig(Record):
    """A GraphSAGE encoder and a link predictor."""

    features: Literal["given", "ones"] = "given"
    """Input of the encoder: the papers' own features (a constant where there are none), or always a
    constant."""

    num_layers: Int = Field(2, ge=0, le=10)
    """Number of SAGEConv layers; 0 leaves the graph out (an MLP on the features alone)."""

    hidden_channels: Int = Field(128, ge=1, le=4096)
    """Channels of every hidden layer and of the embedding."""

    aggr: Literal["mean", "add", "max"] = "mean"
    """Aggregation of SAGEConv over the neighbors of a paper."""

    normalize: Bool = False
    """L2-normalize the output of every layer, as SAGEConv's `normalize`."""

    dropout: Float = Field(0.3, ge=0, lt=1)
    """Dropout probability behind each layer but the last."""

    predictor: PredictorName = "structural"
    """Scores a pair: a dot product, an MLP on the Hadamard product, or the dot product joined
    with the structural features of the pair."""

    structural_hops: Literal[0, 2, 3] = 3
    """Longest path between the two papers that `structural` counts; 0 leaves out all structural
    features but those of the candidate alone (citation count, age)."""

    code: OptionalStr = ""
    """Python file with `build(settings)`, whose module encodes the papers in place of GraphSAGE; a
    run keeps its sha256 in place of the path. See docs/own-model.md."""

    weights: OptionalStr = ""
    """File of safetensors with the weights to start from, such as `model.safetensors` of another
    run; a run keeps its sha256 in place of the path."""


class TrainConfig(Record):
    """Settings of the training."""

    epochs: Float = Field(10.0, gt=0)
    """Passes over the training citations, each without those between papers that it puts into
    different partitions; a fraction is allowed. Not used where `minutes` is set."""

    minutes: Float = Field(0.0, ge=0)
    """Time to train in minutes, validation included; 0 trains for `epochs`."""

    nodes_per_batch: Int = Field(20_000, ge=2)
    """About how many papers a worker takes in a step; fewer where that is over a sixth of the
    graph."""

    num_negatives: Int = Field(256, ge=1)
    """Random papers of a step, per worker, that all its citations are compared with; 16 at most for
    `mlp`."""

    loss: Literal["info_nce", "bce"] = "info_nce"
    """InfoNCE (softmax of a citation against the shared negatives), or binary cross-entropy."""

    hide_references: Float = Field(0.2, ge=0, lt=1)
    """Share of the citing papers of a step that are seen without any of their references, so that
    the model learns to rank for a paper that has none yet. Not used but with `structural`."""

    lr: Float = Field(0.01, gt=0)
    """Highest learning rate of Adam; it warms up, then falls along a cosine."""

    max_grad_norm: Float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 does not clip."""

    precision: Precision = "float32"
    """Type in which a step multiplies matrices. `bfloat16` takes three quarters of the time on some
    processors that have instructions for it; weights, sums and all figures stay float32."""

    seed: Int = Field(0, ge=0)
    """Seed of weights, batches, negatives and dropout."""

    num_validations: Int = Field(10, ge=1)
    """Number of validations during training."""


class EvaluationConfig(Record):
    """Protocols that a trained model is measured by; none of it decides what model comes out."""

    num_sources: Int = Field(0, ge=0)
    """Test citations that the protocols `all` and `cold` rank among all older papers, a random
    sample; 0 takes all of them, or as many as can be ranked in a few minutes."""

    protocol: Literal["ogb", "all", "hard", "cold"] = "ogb"
    """Protocol whose test MRR `compare` compares models by, and by whose validation MRR `tune`
    chooses: OGB's random candidates, all papers, hard candidates, or all papers for sources without
    references."""


class RecoveryConfig(Record):
    """Limits of what a fault may cost.

    None of them decides what model comes out, and a run may be resumed with other values.
    """

    checkpoint_steps: Int = Field(100, ge=1)
    """Steps between two checkpoints, and so the most that are repeated after a fault."""

    step_timeout_s: Float = Field(60.0, ge=1, le=3600)
    """Seconds that a worker waits for another one within a step before it takes it for lost."""


class SandboxConfig(Record):
    """Limits of the sandbox in which this machine runs `model.code`; a cluster has those of a pod.

    None of them decides what model comes out.
    """

    memory_gib: Float = Field(8.0, gt=0)
    """Memory of all processes together, without the mapped files that they share, in GiB."""

    processes: Int = Field(64, ge=4)
    """Processes at a time, torchrun and the workers among them."""

    file_gib: Float = Field(4.0, gt=0)
    """Size of the largest file that is written, in GiB."""

    hours: Float = Field(24.0, gt=0)
    """Time of a training with its evaluation, in hours."""

    build_s: Float = Field(60.0, gt=0, le=3600)
    """Seconds in which the file has to be imported and its model built and checked; this one holds
    on a cluster, too."""


class TaskConfig(Record):
    """All settings of a task, in sections; `train`, `recovery` and `sandbox` are three of them."""

    task: ClassVar[str]
    """Key in `citeflow.tasks.TASKS`."""

    def to_dict(self) -> dict[str, dict[str, JsonValue]]:
        """Return plain values by section and key, as YAML and JSON hold them."""
        return self.model_dump()


C = TypeVar("C", bound=TaskConfig)
CITATION = "citation"
"""The task of settings that name none."""


class Config(TaskConfig):
    """All settings of the citation task.

    Together with the data and the number of workers they decide what model comes out, but for those
    of `evaluation`, `recovery` and `sandbox`.
    """

    task = CITATION

    data: DataConfig = DataConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    sandbox: SandboxConfig = SandboxConfig()


RENAMED = {
    "data.negatives": "data.eval_negatives",
    "data.text_width": "data.text_dim",
    "synthetic.papers": "synthetic.num_papers",
    "model.layers": "model.num_layers",
    "model.width": "model.hidden_channels",
    "model.aggregation": "model.aggr",
    "model.evidence_hops": "model.structural_hops",
    "train.papers": "train.nodes_per_batch",
    "train.negatives": "train.num_negatives",
    "train.clip": "train.max_grad_norm",
    "train.evaluations": "train.num_validations",
}
"""Settings by their former names, for the error that says how they are called now."""

Presets = Mapping[str, Mapping[str, Mapping[str, JsonValue]]]
"""Changes of settings by section and key, by the name of the preset."""

PRESETS: dict[str, dict[str, dict[str, JsonValue]]] = {
    "default": {},
    "seed": {
        "model": {
            "features": "ones",
            "num_layers": 5,
            "hidden_channels": 256,
            "aggr": "add",
            "normalize": True,
            "dropout": 0.5,
            "predictor": "dot",
        },
        "train": {"loss": "bce", "nodes_per_batch": 40_000},
    },
    "board": {
        "model": {"dropout": 0.0},
        "train": {"epochs": 50.0, "num_validations": 25},
    },
}
"""`seed` is the published student model that citeflow comes from, github.com/0M1J/kubeflow-GNN,
ogbl/train.py. `board` is the default's model trained for ogbl-citation2's leaderboard, for as many
epochs as OGB's examples and, as they do, without dropout: 30 million citations are many for its few
weights."""


def load(
    *,
    preset: str = "default",
    file: Path | None = None,
    text: str = "",
    overrides: Iterable[str] = (),
) -> Config:
    """Read settings: a preset, a file over it, then YAML text, then `section.key=value` overrides.

    Raises:
        ConfigError: a name is unknown (the hint has the nearest one), or a value is out of range.
        NotFoundError: there is no such file.
    """
    changes = read_changes(file=file, text=text, overrides=overrides)
    return from_dict(over_preset(preset, PRESETS, changes))


def read_changes(
    *, file: Path | None = None, text: str = "", overrides: Iterable[str] = ()
) -> dict[str, object]:
    """Read what is given over a preset: a file, YAML text over it, then overrides.

    Raises:
        ConfigError: one of them is not of its form.
        NotFoundError: there is no such file.
    """
    layers: list[Mapping[str, object]] = []
    if file is not None:
        layers.append(_read_yaml(file))
    layers.append(records.parse_yaml(text, "settings"))
    layers.extend(_parse_override(text) for text in overrides)
    return _merge(layers)


def over_preset(preset: str, presets: Presets, changes: Mapping[str, object]) -> dict[str, object]:
    """Put changes over one of the presets.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset not in presets:
        raise ConfigError("unknown preset", preset, hint=f"one of {', '.join(presets)}")
    return _merge([presets[preset], changes])


def from_yaml(text: str) -> Config:
    """Read settings from YAML text, such as a pipeline parameter."""
    return from_dict(records.parse_yaml(text, "settings"))


def to_yaml(config: TaskConfig) -> str:
    """Write all settings as YAML text, with the name of the task if that is not the default."""
    task = {} if config.task == CITATION else {"task": config.task}
    return yaml.safe_dump({**task, **config.to_dict()}, sort_keys=False, default_flow_style=False)


def from_dict(values: Mapping[str, object]) -> Config:
    """Build settings from plain values by section and key."""
    return records.load(Config, values, renamed=RENAMED)


def changed(config: C, changes: Mapping[str, object]) -> C:
    """Return the settings with some of them replaced, given by section and key."""
    merged = _merge([config.to_dict(), changes])
    return records.load(type(config), merged, renamed=RENAMED)


def all_keys() -> list[str]:
    """List every setting's full name, such as `train.epochs`."""
    return records.field_names(Config)


def _parse_override(text: str) -> Mapping[str, object]:
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        hint = "for example --set train.epochs=3"
        raise ConfigError("not of the form section.key=value", text, hint=hint)
    return {section: {name: records.parse_scalar(key, value)}}


def _read_yaml(file: Path) -> Mapping[str, object]:
    try:
        return records.parse_yaml(file.read_text(), str(file))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError("no such settings file", file) from None
    except UnicodeDecodeError:
        raise ConfigError("not a text file", file) from None


def _merge(layers: Iterable[Mapping[str, object]]) -> dict[str, object]:
    merged: dict[str, object] = {}
    for layer in layers:
        for section, entries in layer.items():
            old = merged.get(section, {})
            if isinstance(old, Mapping) and isinstance(entries, Mapping):
                entries = {**old, **entries}
            merged[section] = entries
    return merged
