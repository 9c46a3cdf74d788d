"""Tasks that several pipelines have in a row."""

from typing import Any

from kfp import dsl, kubernetes

from citeflow.kubeflow.params import FROM_SETTINGS
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE
from citeflow.reporting import links
from citeflow.reporting.mlflow import KFP_RUN_ID
from citeflow.reporting.registered_models import NAME_VARIABLE as MODEL_NAME
from components.base import Memory, request_resources
from components.download.component import download
from components.evaluate.component import evaluate
from components.index.component import index
from components.preprocess.component import preprocess
from components.publish.component import publish
from components.run_trials.component import run_trials
from components.train.component import train

MLFLOW = "citeflow-mlflow"
"""ConfigMap with the address of MLflow, and Secret with its credentials; each may be missing."""


def download_task(
    *,
    dataset: str,
    preset: str,
    settings: str,
    run_name: str,
    launcher: str,
    job: str,
    data_root: str,
    predictor: str = FROM_SETTINGS,
    epochs: float = 0.0,
    minutes: float = 0.0,
    workers: int = 1,
    out_dir: str = "",
    deploy: str = "",
    task: str = "",
) -> dsl.PipelineTask:
    """Add the first task: it checks the parameters of the run and downloads its dataset."""
    added = download(
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
        title=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        launcher=launcher,
        job=job,
        data_root=data_root,
        deploy=deploy,
        task=task,
    )
    request_resources(added, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    return added


def preprocess_task(raw: dsl.PipelineTask, data_root: str) -> dsl.PipelineTask:
    """Add the task that makes a PreparedGraph of a download."""
    task = preprocess(
        raw=raw.outputs["raw_dataset"],
        raw_sha256=raw.outputs["sha256"],
        settings=raw.outputs["data_resolved"],
        data_root=data_root,
    )
    request_resources(task, cpu=("500m", "4"), memory=graph_memory(raw), cached=True)
    return task


def graph_memory(raw: dsl.PipelineTask) -> Memory:
    """Return request and limit of a step that holds the graph, as the download has settled them."""
    return raw.outputs["memory"], raw.outputs["memory_limit"]


def run_each(
    shares: dsl.PipelineTask, graph: dsl.PipelineTask, *, memory: Memory, job: str, data_root: str
) -> dsl.Collected:
    """Add a loop over the shares of an experiment's trials; return the digests of their reports.

    In a loop, all that another task made has to be part of the item: kfp.local puts the item in the
    place of any other such parameter. Memory it ignores, and kfp's compiler refuses as a part of
    an item.
    """
    with dsl.ParallelFor(shares.output, name="shares") as share:
        reports = run_trials(
            graph=graph.outputs["prepared_graph"],
            trials=share.trials,
            run_name=share.run,
            run_id=share.run_id,
            launcher=share.launcher,
            job=job,
            data_root=data_root,
        )
        request_training_resources(reports, memory)
        _connect_to_mlflow(reports)
    return dsl.Collected(reports.output)


def request_training_resources(task: dsl.PipelineTask, memory: Memory) -> None:
    """Set what a task needs to train, or to create jobs that train and end with its pod.

    Args:
        task: the task.
        memory: request and limit, outputs of another task.
    """
    # kfp lets no loop see an output that is not an argument of its tasks, unless it is told.
    task.register_pipeline_channels(list(memory))
    request_resources(task, cpu=("500m", "16"), memory=memory, cached=False)
    task.set_env_variable(IMAGE_VARIABLE, IMAGE)
    kubernetes.use_field_path_as_env(task, env_name="CITEFLOW_POD_NAME", field_path="metadata.name")
    kubernetes.use_field_path_as_env(task, env_name="CITEFLOW_POD_UID", field_path="metadata.uid")


def evaluate_and_publish(
    model: Any,
    model_sha256: Any,
    *,
    graph: Any,
    memory: Memory,
    data_root: str,
    out_dir: Any = "",
) -> dsl.PipelineTask:
    """Add the tasks behind a training; return the one whose output is the report's digest."""
    report = evaluate(model=model, model_sha256=model_sha256, graph=graph, data_root=data_root)
    request_resources(report, cpu=("500m", "16"), memory=memory, cached=True)
    published = publish(
        report=report.outputs["eval_report"],
        report_sha256=report.outputs["Output"],
        model=model,
        out_dir=out_dir,
        data_root=data_root,
    )
    request_resources(published, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    _connect_to_mlflow(published)
    link_to_pages(published)
    return report


def train_and_evaluate(
    raw: dsl.PipelineTask,
    *,
    workers: int,
    job: str,
    data_root: str,
    out_dir: str = "",
    deploy: str,
) -> None:
    """Add the tasks behind a download; the last one only where there is a service to deploy to."""
    graph = preprocess_task(raw, data_root)
    model = train(
        graph=graph.outputs["prepared_graph"],
        settings=raw.outputs["resolved"],
        workers=workers,
        run_name=raw.outputs["run"],
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        launcher=raw.outputs["launcher"],
        job=job,
        data_root=data_root,
    )
    request_training_resources(model, graph_memory(raw))
    report = evaluate_and_publish(
        model.outputs["trained_model"],
        model.outputs["Output"],
        graph=graph.outputs["prepared_graph"],
        memory=graph_memory(raw),
        data_root=data_root,
        out_dir=out_dir,
    )
    with dsl.If(deploy != "", name="deploy"):
        deployed = index(
            model=model.outputs["trained_model"],
            model_sha256=model.outputs["Output"],
            graph=graph.outputs["prepared_graph"],
            deploy=deploy,
            data_root=data_root,
        ).after(report)
        # kfp lets no branch see an output that is not an argument of its tasks, unless it is told.
        deployed.register_pipeline_channels(list(graph_memory(raw)))
        request_resources(deployed, cpu=("500m", "16"), memory=graph_memory(raw), cached=False)


def link_to_pages(task: dsl.PipelineTask) -> None:
    """Give a task that writes a summary the addresses of TensorBoard and others."""
    kubernetes.use_config_map_as_env(
        task, links.CONFIG_MAP, {name: name for name in links.VARIABLES}, optional=True
    )


def _connect_to_mlflow(task: dsl.PipelineTask) -> None:
    """Give a task the variables of MLflow's client that are set in the namespace."""
    addresses = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", MODEL_NAME)
    secrets = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    kubernetes.use_config_map_as_env(
        task, MLFLOW, {name: name for name in addresses}, optional=True
    )
    kubernetes.use_secret_as_env(task, MLFLOW, {name: name for name in secrets}, optional=True)
    kubernetes.use_field_path_as_env(
        task, env_name=KFP_RUN_ID, field_path=f"metadata.labels['{RUN_ID}']"
    )
