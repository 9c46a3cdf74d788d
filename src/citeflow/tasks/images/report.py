"""The report of an image run: the typed content of `report.json` and `errors.json`.

The curves are those of `citeflow.report.Curves`.
"""

from pathlib import Path

from pydantic import ConfigDict, Field

from citeflow import files
from citeflow.errors import CorruptError
from citeflow.report import REPAIR, REPORT, Compared, StageCost, TrainSummary
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.prepared import ImageFacts
from citeflow.utils import records
from citeflow.utils.records import Record

KIND = "EvalReport"
ERRORS = "errors.json"
SAMPLES = "samples.npy"
"""Images [K, n, H, W, C]: some training images of each class, uint8; fewer are filled with 0."""
ERROR_IMAGES = "errors.npy"
"""Images [n, H, W, C] of `errors.json`."""


class _Open(Record):
    """A record that another version of citeflow may have written with fields of its own."""

    model_config = ConfigDict(extra="ignore")


class ImageScores(_Open):
    """Figures of the model on one split."""

    accuracy: float
    """Share of images whose most probable class is theirs."""
    accuracy_ci: tuple[float, float]
    """Its 95 % confidence interval, by Wilson's score."""
    loss: float
    """Mean cross entropy, in nats."""
    macro_f1: float
    """Mean over the classes of the harmonic mean of precision and recall."""
    num_images: int


class ClassScores(_Open):
    """Figures of one class on the test; 0 where nothing was predicted as it, or none is of it."""

    name: str
    precision: float
    recall: float
    f1: float
    num_images: int


class ImageReport(_Open):
    """Content of `report.json`."""

    task: str = ImagesConfig.task
    dataset: str
    facts: ImageFacts
    config: ImagesConfig
    versions: dict[str, str]
    valid: ImageScores
    test: ImageScores
    classes: tuple[ClassScores, ...]
    baselines: dict[str, float]
    """Test accuracy of predictors that need no training."""
    num_errors: int
    """Test images with another class than predicted."""
    train: TrainSummary
    stages: dict[str, StageCost] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "ImageReport":
        """Read `report.json` of an EvalReport, or of a folder that `publish` made.

        Raises:
            NotFoundError: there is none.
            CorruptError: it is not what `evaluate` writes.
        """
        path = folder / REPORT
        return records.load(
            cls, files.read_json(path), name=str(path), error=CorruptError, hint=REPAIR
        )

    def compared(self) -> Compared:
        """Return the accuracy, by which models are compared."""
        return Compared(
            seed=self.config.train.seed,
            epochs=self.config.train.epochs,
            valid=self.valid.accuracy,
            test=self.test.accuracy,
            second=self.test.macro_f1,
            metric="accuracy",
            names=("valid_accuracy", "test_accuracy", "macro_f1"),
            second_label="Macro F1",
        )

    def to_json(self) -> dict[str, object]:
        """Return plain values, as `report.json` holds them."""
        return self.model_dump(mode="json", exclude_none=True)


class Misclassified(_Open):
    """A test image with another class than predicted."""

    row: int
    """Of the PreparedImages."""
    true: str
    predicted: str
    probability: float
    """Of the predicted class."""


class Errors(_Open):
    """Content of `errors.json`: some of the errors, the most confident first."""

    shown: tuple[Misclassified, ...]
