"""The model that a command is to use: by a folder, the name of a run, or MLflow's registry."""

from pathlib import Path

from citeflow.artifacts import TRAINED_MODEL
from citeflow.config import CITATION
from citeflow.errors import ConfigError, NotFoundError
from citeflow.tasks import task_of


def find_model(run: str, data_root: Path) -> Path:
    """Return the TrainedModel of a run.

    Args:
        run: the --out folder of a run, a model, the name of a run below the data root, or a model
            of MLflow's registry such as models:/citeflow@champion, which is downloaded.
        data_root: the folder of all runs.

    Raises:
        NotFoundError: there is none.
        UnavailableError: MLflow does not answer.
    """
    if run.startswith("models:/"):
        from citeflow.reporting import registered_models

        return registered_models.resolve(run, data_root)
    folder = Path(run).expanduser().absolute()
    named = data_root / "runs" / run
    for path in (folder / "model", folder, named / "model"):
        if (path / "model.json").is_file():
            return path
    hint = "name the --out folder of a run, its model, or a run below the --data-root"
    raise NotFoundError("no model here", folder, hint=hint)


def find_citation_model(run: str, data_root: Path) -> Path:
    """Return the TrainedModel of a run that predicts citations.

    The arguments and errors are those of `find_model`, and:

    Raises:
        ConfigError: it is one of another task.
    """
    model = find_model(run, data_root)
    if (task := task_of(model, TRAINED_MODEL).name) != CITATION:
        hint = f"`citeflow serve` answers with a model of {task}"
        raise ConfigError("not a model of citations", model, hint=hint)
    return model
