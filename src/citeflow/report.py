"""The report of a run: the typed content of `report.json` and `curves.json`.

These are the product's central records. `evaluate` writes them; page, Markdown, TensorBoard,
MLflow, the run page of KFP and the experiments read them. CONTRIBUTING says where a metric is
added.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import ConfigDict, Field, JsonValue

from citeflow import files
from citeflow.config import Config, TaskConfig
from citeflow.errors import CorruptError
from citeflow.utils import records
from citeflow.utils.records import Record

REPORT = "report.json"
CURVES = "curves.json"
WARNING = "WARNING"
"""First word of a remark that puts the figures in doubt."""

MIN_TEST_CITATIONS = 30
"""With fewer, the figures of a test say next to nothing."""

REPAIR = "run `citeflow evaluate` again"


class _Open(Record):
    """A record that another version of citeflow may have written with fields of its own."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, allow_inf_nan=True)


class Scores(_Open):
    """Figures of the model on one split. Ranks are OGB's: mid-rank on ties, fp32 logits."""

    mrr: float
    """Mean reciprocal rank of the positives among their negatives."""

    hits_at_1: float = Field(alias="hits@1")
    """Share of positives with rank at most 1."""

    hits_at_3: float = Field(alias="hits@3")
    hits_at_10: float = Field(alias="hits@10")

    accuracy: float
    """Share of positives, and as many random negatives, on the right side of probability 0.5."""

    auc: float
    """Area under the ROC curve, ten negatives for each positive."""

    num_positives: int
    """Held-out citations."""

    num_negatives: int
    """Papers that each of them is ranked against."""

    def figures(self) -> dict[str, float]:
        """Return all figures by their names in `report.json`."""
        return self.model_dump(by_alias=True)


class BaselineScores(_Open):
    """Figures of a predictor that needs no training, on the test split."""

    mrr: float


class RankScores(_Open):
    """Figures of one method in one protocol; each test citation is a query with one answer."""

    mrr: float
    """Mean reciprocal rank of the cited paper among the candidates."""

    recall_at_20: float = Field(alias="recall@20")
    """Share of the cited papers among the first 20."""

    recall_at_100: float = Field(alias="recall@100")
    median_rank: float

    def figures(self) -> dict[str, float]:
        """Return the figures by their names in `report.json`."""
        return RankScores.model_dump(self, by_alias=True, include=set(RankScores.model_fields))


class ProtocolScores(RankScores):
    """Figures of the model in one protocol, and of the baselines on the same candidates."""

    num_sources: int
    """Test citations that were ranked."""

    of_sources: int
    """Test citations that there are; `num_sources` of them are a random sample, or all."""

    num_candidates: int
    """Papers that each was ranked against, the median."""

    ci: dict[str, tuple[float, float]] | None = None
    """The 95 % confidence interval of each figure, by the bootstrap; None where all were ranked."""

    seconds: float
    """Time that the ranking took, by all methods."""

    baselines: dict[str, RankScores]


class TrainSummary(_Open):
    """Facts of the training."""

    workers: int
    epochs: float
    """Citations trained on, over the training citations there are."""
    steps: int
    positives: int
    """Citations trained on."""
    seconds: float
    positives_per_s: float
    parameters: int
    cpu_cores: float | None = None
    """Mean cores in use by all ranks."""
    others_share: float | None = None
    """Share of the machines' cores that others used meanwhile; None where it is not known, as in a
    container that may not use all of them."""
    peak_memory_bytes: float | None = None
    """Highest memory of all ranks; pages that those of one machine share count once."""
    goodput: float | None = None
    """Share of the wall time that went into steps which are in the model."""
    wall_seconds: float | None = None
    """From the launch to the model, over all starts of the workers; what lay between two launches
    is left out."""
    losses: dict[str, float] = Field(default_factory=dict)
    """Seconds of it that went into no such step, by the causes of `formatting.LOSSES`."""


class StageCost(_Open):
    """The resources that one stage took; None where the system does not say."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    """Of all its processes."""
    peak_rss_bytes: float | None = None
    """Of its largest process."""
    read_bytes: float | None = None
    written_bytes: float | None = None
    received_bytes: float | None = None
    sent_bytes: float | None = None


def stage_costs(manifest: files.Manifest) -> dict[str, StageCost]:
    """Return the costs that the manifest of an artifact names: of its own stage and those before.

    Raises:
        CorruptError: they are not what a stage writes.
    """
    costs = manifest.facts.get("stages", {})
    if not isinstance(costs, dict):
        raise CorruptError(f"manifest of a {manifest.kind} lacks costs", "stages")
    return {
        name: records.load(StageCost, cost, name=f"stages.{name}", error=CorruptError)
        for name, cost in costs.items()
    }


class RunReport(Protocol):
    """The part of a report that every task has, as tables and TensorBoard show it."""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""

    @property
    def config(self) -> TaskConfig:
        """All settings."""

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that the figures depend on."""

    @property
    def train(self) -> TrainSummary:
        """Facts of the training."""

    @property
    def stages(self) -> dict[str, StageCost]:
        """Costs of the stages, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """The figures by which models of one task are compared."""

    seed: int
    epochs: float
    """Passes over the training samples that were asked for."""
    valid: float
    """Validation score, by which a model is chosen."""
    test: float
    """The same on the test, in a protocol that may be another."""
    second: float
    """One more figure of the test."""
    metric: str
    """Label of the score."""
    names: tuple[str, str, str]
    """Names of `valid`, `test` and `second`; validations are recorded by the first."""
    second_label: str
    protocol: str = "ogb"
    """Protocol of the test, where a task has several."""
    mrr_by_protocol: Mapping[str, float] = field(default_factory=dict)
    """Test MRR in all protocols that were measured."""


class ComparedReport(RunReport, Protocol):
    """A report that an experiment compares with others."""

    def compared(self) -> Compared:
        """Return the figures that models are compared by."""


class Report(_Open):
    """Content of `report.json`."""

    dataset: str
    num_papers: int
    num_citations: int
    facts: dict[str, JsonValue]
    """Facts of the PreparedGraph: counts, and how it was split."""
    config: Config
    versions: dict[str, str]
    """Versions of the packages that the figures depend on."""
    valid: Scores
    test: Scores
    protocols: dict[str, ProtocolScores] = Field(default_factory=dict)
    """Test figures by protocol: `ogb`, `all`, `hard`, `cold`; empty in an older report."""
    baselines: dict[str, BaselineScores]
    """Of the protocol `ogb`."""
    train: TrainSummary
    stages: dict[str, StageCost] = Field(default_factory=dict)
    """Costs of the stages, by name."""

    def mrr(self, protocol: str) -> float:
        """Return the test MRR of a protocol.

        Raises:
            CorruptError: it was not measured.
        """
        if protocol in self.protocols:
            return self.protocols[protocol].mrr
        if protocol == "ogb":
            return self.test.mrr
        raise CorruptError(f"{REPORT} lacks a protocol", protocol, hint=REPAIR)

    @property
    def mrr_by_protocol(self) -> dict[str, float]:
        """Test MRR in all protocols that were measured."""
        return {name: scores.mrr for name, scores in self.protocols.items()}

    def compared(self) -> Compared:
        """Return the MRR of the protocol that models are compared by."""
        protocol = self.config.evaluation.protocol
        return Compared(
            seed=self.config.train.seed,
            epochs=self.config.train.epochs,
            valid=self.valid.mrr,
            test=self.mrr(protocol),
            second=self.test.accuracy,
            metric="MRR",
            names=("valid_mrr", "test_mrr", "accuracy"),
            second_label="Accuracy",
            protocol=protocol,
            mrr_by_protocol=self.mrr_by_protocol,
        )

    @property
    def remarks(self) -> list[str]:
        """Findings in the dataset: what was taken for something else, left out, or looks odd."""
        remarks = self.facts.get("remarks", [])
        return [str(text) for text in remarks] if isinstance(remarks, list) else []

    @property
    def warnings(self) -> list[str]:
        """Those remarks that put the figures in doubt."""
        return [text for text in self.remarks if text.startswith(WARNING)]

    @property
    def is_tiny(self) -> bool:
        """True if the test has too few citations for a figure that says anything."""
        return self.test.num_positives < MIN_TEST_CITATIONS

    def to_json(self) -> dict[str, object]:
        """Return plain values, as `report.json` holds them, without figures that are unknown."""
        values = self.model_dump(by_alias=True)
        for name in ("protocols", "train", "stages"):
            values[name] = _without_none(values[name])
        return values

    @classmethod
    def from_json(cls, values: object, *, name: str = REPORT) -> "Report":
        """Read plain values.

        Raises:
            CorruptError: they are not what `evaluate` writes; the first bad field is named.
        """
        return records.load(cls, values, name=name, error=CorruptError, hint=REPAIR)

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read `report.json` of an EvalReport, or of a folder that `publish` made.

        Raises:
            NotFoundError: there is none.
            CorruptError: it is not what `evaluate` writes.
        """
        return cls.from_json(files.read_json(folder / REPORT), name=str(folder / REPORT))


class RocCurve(_Open):
    """Points of the ROC curve, by falling threshold."""

    fpr: list[float]
    tpr: list[float]
    threshold: list[float]


class YearScore(_Open):
    """Test MRR of the sources of one year."""

    year: int
    mrr: float
    num: int


class RankResources(_Open):
    """Resources of one rank over time, an entry per moment; None where it was not sampled."""

    rank: int
    cpu_cores: list[float | None] = Field(default_factory=list)
    container_cpu_cores: list[float | None] = Field(default_factory=list)
    read_bytes_per_s: list[float | None] = Field(default_factory=list)
    written_bytes_per_s: list[float | None] = Field(default_factory=list)
    received_bytes_per_s: list[float | None] = Field(default_factory=list)
    sent_bytes_per_s: list[float | None] = Field(default_factory=list)
    memory_bytes: list[float | None] = Field(default_factory=list)
    """Resident memory, highest since the moment before."""
    shared_bytes: list[float | None] = Field(default_factory=list)
    container_bytes: list[float | None] = Field(default_factory=list)


class Resources(_Open):
    """Resources of the ranks over time: content of `resources.json` of a TrainedModel."""

    seconds: list[float] = Field(default_factory=list)
    """Moments, since the workers started."""
    ranks: list[RankResources] = Field(default_factory=list)


class Curves(_Open):
    """Content of `curves.json`: what the plots of a report show. An empty one draws nothing."""

    history: list[dict[str, float]] = Field(default_factory=list)
    """Records of training steps: step, epoch, seconds, loss, lr, positives_per_s."""
    evaluations: list[dict[str, float]] = Field(default_factory=list)
    """Records of validations: step, epoch, seconds, valid_mrr."""
    resources: Resources = Field(default_factory=Resources)
    roc: RocCurve | None = None
    confusion: list[list[int]] = Field(default_factory=list)
    """Rows: no citation, citation; columns: predicted as such."""
    degrees: dict[str, list[tuple[int, int]]] = Field(default_factory=dict)
    """For `references` and `citations`: pairs of a degree and the number of papers that have it."""
    mrr_by_year: list[YearScore] = Field(default_factory=list)
    ranks: list[tuple[int, int]] = Field(default_factory=list)
    """Upper bound of a bin, and the number of positives whose rank lies in it."""

    @classmethod
    def read(cls, folder: Path) -> "Curves":
        """Read `curves.json` of an EvalReport.

        Raises:
            NotFoundError: there is none.
            CorruptError: it is not what `evaluate` writes.
        """
        path = folder / CURVES
        values = files.read_json(path)
        return records.load(cls, values, name=str(path), error=CorruptError, hint=REPAIR)


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
