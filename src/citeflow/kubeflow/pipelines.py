"""The pipelines of citeflow: a folder below `pipelines/` and one line in PIPELINES each."""

import importlib.resources
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from citeflow.errors import NotFoundError
from citeflow.kubeflow.params import RunParams


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline, by the name of its folder, which is its name on a server too."""

    name: str

    validator: str = ""
    """`module:function` that checks the parameters that are the pipeline's own.

    It is imported when it is needed, as experiments are built on this package.
    """

    task: str = ""
    """Task that it trains, where the settings may not name another."""

    def validate(self, values: Mapping[str, object]) -> None:
        """Check parameters before a run as its first stages would.

        Raises:
            ConfigError: one of them is wrong, or two of them contradict each other.
        """
        params = RunParams.of_pipeline({**values, "task": self.task})
        if self.validator:
            pkgutil.resolve_name(self.validator)(values, params.config())

    def compiled(self) -> Path:
        """Return the compiled file: that of the checkout, or the one installed with the package.

        Raises:
            NotFoundError: there is neither.
        """
        root = Path(__file__).resolve().parents[3]
        in_checkout = root / "pipelines" / self.name / "pipeline.yaml"
        package = Path(str(importlib.resources.files("citeflow")))
        for path in (in_checkout, package / "compiled" / f"{self.name}.yaml"):
            if path.is_file():
                return path
        raise NotFoundError("no compiled pipeline", in_checkout, hint="run `citeflow compile`")


PIPELINES = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline("citation"),
        Pipeline("images", task="images"),
        Pipeline("scaling", "citeflow.experiments.parameters:validate_scaling"),
        Pipeline("compare", "citeflow.experiments.parameters:validate_comparison"),
        Pipeline("tune", "citeflow.experiments.parameters:validate_tuning"),
    )
}
