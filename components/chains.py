"""Steps that several pipelines have in a row."""

from typing import Any

from kfp import dsl, kubernetes

from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE
from citeflow.reporting.mlflow import KFP_RUN_ID
from components.base import place
from components.download.component import download
from components.evaluate.component import evaluate
from components.preprocess.component import preprocess
from components.publish.component import publish
from components.train.component import train

MLFLOW = "citeflow-mlflow"
"""The ConfigMap that says where MLflow is, and the Secret with what it takes to log in; each may be missing."""


def begun(
    *,
    dataset: str,
    preset: str,
    settings: str,
    run_name: str,
    launcher: str,
    job: str,
    data_root: str,
    predictor: str = "settings",
    epochs: float = 0.0,
    minutes: float = 0.0,
    workers: int = 1,
    out_dir: str = "",
) -> dsl.PipelineTask:
    """The first step: name, settings and folders of the run, and the RawDataset."""
    raw = download(
        dataset=dataset,
        preset=preset,
        settings=settings,
        predictor=predictor,
        epochs=epochs,
        minutes=minutes,
        workers=workers,
        run_name=run_name,
        out_dir=out_dir,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    place(raw, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    return raw


def prepared(raw: dsl.PipelineTask, data_root: str) -> dsl.PipelineTask:
    """The step behind a download: the PreparedGraph."""
    graph = preprocess(
        raw=raw.outputs["raw"],
        raw_sha256=raw.outputs["sha256"],
        settings=raw.outputs["data_resolved"],
        data_root=data_root,
    )
    place(graph, cpu=("500m", "4"), memory=("2Gi", "32Gi"), cached=True)
    return graph


def learned_each(
    trials: dsl.PipelineTask, graph: dsl.PipelineTask, *, launcher: str, job: str, data_root: str
) -> dsl.Collected:
    """Every run of an experiment, one after the other, so that their times compare; returns the reports' digests."""
    with dsl.ParallelFor(trials.output, name="runs", parallelism=1) as trial:
        report = learned(
            graph,
            settings=trial.settings,
            workers=trial.workers,
            run_name=trial.run_name,
            launcher=launcher,
            job=job,
            data_root=data_root,
        )
    return dsl.Collected(report.outputs["Output"])


def place_training(task: dsl.PipelineTask) -> None:
    """Give a step what it needs to train, or to make jobs that do and that end with its pod."""
    place(task, cpu=("500m", "16"), memory=("1Gi", "64Gi"), cached=False)
    task.set_env_variable(IMAGE_VARIABLE, IMAGE)
    kubernetes.use_field_path_as_env(task, env_name="CITEFLOW_POD_NAME", field_path="metadata.name")
    kubernetes.use_field_path_as_env(task, env_name="CITEFLOW_POD_UID", field_path="metadata.uid")


def scored(
    model: Any, model_sha256: Any, *, graph: Any, data_root: str, out_dir: Any = ""
) -> dsl.PipelineTask:
    """Everything behind the training of one model; returns the step whose output is the digest of the report."""
    report = evaluate(model=model, model_sha256=model_sha256, graph=graph, data_root=data_root)
    place(report, cpu=("500m", "16"), memory=("2Gi", "64Gi"), cached=True)
    published = publish(
        report=report.outputs["report"],
        report_sha256=report.outputs["Output"],
        model=model,
        out_dir=out_dir,
        data_root=data_root,
    )
    place(published, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    _let_mlflow_be_told(published)
    return report


def learned(
    graph: dsl.PipelineTask,
    *,
    settings: str,
    workers: int,
    run_name: str,
    launcher: str,
    job: str,
    data_root: str,
    out_dir: str = "",
) -> dsl.PipelineTask:
    """Everything behind the PreparedGraph of one run; returns the step whose output is the digest of the report.

    In a loop, kfp.local hands the item over in place of a parameter that another step made: there, settings, workers
    and name have to be parts of the item.
    """
    model = train(
        graph=graph.outputs["graph"],
        settings=settings,
        workers=workers,
        run_name=run_name,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    place_training(model)
    made = model.outputs
    return scored(
        made["model"],
        made["Output"],
        graph=graph.outputs["graph"],
        data_root=data_root,
        out_dir=out_dir,
    )


def _let_mlflow_be_told(task: dsl.PipelineTask) -> None:
    """Give a step the variables of MLflow's client, as far as somebody has set them for the namespace."""
    places = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
    secrets = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    kubernetes.use_config_map_as_env(task, MLFLOW, {name: name for name in places}, optional=True)
    kubernetes.use_secret_as_env(task, MLFLOW, {name: name for name in secrets}, optional=True)
    kubernetes.use_field_path_as_env(
        task, env_name=KFP_RUN_ID, field_path=f"metadata.labels['{RUN_ID}']"
    )
