"""Talks to MLflow: one run for a name and a trained model, which a repeated call completes.

Importing this imports mlflow, so it is done within `quiet` only.
"""

import os
import re

from mlflow import MlflowClient, entities
from mlflow.entities import LoggedModelStatus
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from citeflow import files
from citeflow.reporting.mlflow.run_record import Account, Point, profile_text

EXPERIMENT = "citeflow"
FINISHED = "FINISHED"
KEY = "citeflow.key"
"""Tag by which a run is found again."""
PER_REQUEST = 100
"""MLflow's limit for parameters and tags; it takes ten times as many metrics, in at most 1 MB."""
DIGEST_DIGITS = 36
PARAM_CHARACTERS, TAG_CHARACTERS = 6000, 8000


def tell(account: Account, uri: str) -> str:
    """Tell MLflow all of a run, or what it does not know of it yet; returns the id of the run there.

    Raises:
        Exception: whatever mlflow, and what it uses, raises.
    """
    client = MlflowClient(uri)
    parent = os.environ.get("MLFLOW_RUN_ID")
    experiment = client.get_run(parent).info.experiment_id if parent else _experiment(client)
    run = _run(client, experiment, account, parent)
    run_id = str(run.info.run_id)
    if (
        run.info.status == FINISHED
        and run.data.tags.get("EvalReport") == account.digests["EvalReport"]
    ):
        return run_id
    _tell_figures(client, run_id, account)
    model_id = _model(client, experiment, run_id, account)
    _tell_metrics(client, run_id, model_id, account)
    for path in account.artifacts:
        client.log_artifact(run_id, str(path))
    client.log_batch(run_id, tags=_tags(account.tags))
    client.set_terminated(run_id, FINISHED, end_time=_ms(account.end))
    return run_id


def _experiment(client: MlflowClient) -> str:
    """Id of the experiment that the environment names, which is made unless it is there."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _run(
    client: MlflowClient, experiment: str, account: Account, parent: str | None
) -> entities.Run:
    """The run of this name and model, made unless it is there.

    A creation whose answer was lost is repeated by the client, so that there may be two of it.
    """
    key = files.sha256_of_json(
        {"run": account.name, "model": account.digests["TrainedModel"], "parent": parent or ""}
    )
    tags = {KEY: key, **({MLFLOW_PARENT_RUN_ID: parent} if parent else {})}

    def found() -> list[entities.Run]:
        runs = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'")
        return sorted(runs, key=lambda run: (run.info.status != FINISHED, run.info.run_id))

    if before := found():
        return before[0]
    made = client.create_run(
        experiment, start_time=_ms(account.start), tags=tags, run_name=account.name
    )
    first, *twins = found() or [made]
    for twin in twins:
        client.delete_run(twin.info.run_id)
    return first


def _tell_figures(client: MlflowClient, run_id: str, account: Account) -> None:
    params = [
        entities.Param(name, value[:PARAM_CHARACTERS]) for name, value in account.params.items()
    ]
    for begin in range(0, len(params), PER_REQUEST):
        client.log_batch(run_id, params=params[begin : begin + PER_REQUEST])
    datasets = [
        entities.DatasetInput(
            entities.Dataset(
                name=dataset.name,
                digest=dataset.sha256[:DIGEST_DIGITS],
                source_type="citeflow",
                source=profile_text(dataset),
                profile=profile_text(dataset),
            ),
            [entities.InputTag("mlflow.data.context", dataset.context)],
        )
        for dataset in account.datasets
    ]
    client.log_inputs(run_id, datasets)


def _model(client: MlflowClient, experiment: str, run_id: str, account: Account) -> str:
    """Id of the run's model, whose files are uploaded as they are unless they are there."""
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    model = found[0] if found else _new_model(client, experiment, run_id, account)
    model_id = str(model.model_id)
    if model.status != LoggedModelStatus.READY:
        client.log_model_artifacts(model_id, str(account.model))
        client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    outputs = client.get_run(run_id).outputs
    if not outputs or not outputs.model_outputs:
        client.log_outputs(run_id, [entities.LoggedModelOutput(model_id, _last_step(account))])
    return model_id


def _new_model(
    client: MlflowClient, experiment: str, run_id: str, account: Account
) -> entities.LoggedModel:
    return client.create_logged_model(
        experiment,
        name=re.sub(r"[^\w-]+", "-", account.name),
        source_run_id=run_id,
        tags=account.tags,
        params=account.params,
        model_type="link predictor",
    )


def _last_step(account: Account) -> int:
    return max((point.step for point in account.points), default=0)


def _tell_metrics(client: MlflowClient, run_id: str, model_id: str, account: Account) -> None:
    """The points of all curves, and the results, which belong to the model and the dataset too."""
    metrics = [_metric(point, run_id, model_id, account) for point in account.points]
    for begin in range(0, len(metrics), 5 * PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[begin : begin + 5 * PER_REQUEST])


def _metric(point: Point, run_id: str, model_id: str, account: Account) -> entities.Metric:
    measured = account.datasets[0]
    return entities.Metric(
        key=point.name,
        value=point.value,
        timestamp=_ms(point.wall_time),
        step=point.step,
        run_id=run_id if point.of_model else None,
        model_id=model_id if point.of_model else None,
        dataset_name=measured.name if point.of_model else None,
        dataset_digest=measured.sha256[:DIGEST_DIGITS] if point.of_model else None,
    )


def _tags(tags: dict[str, str]) -> list[entities.RunTag]:
    return [entities.RunTag(name, value[:TAG_CHARACTERS]) for name, value in tags.items()]


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
