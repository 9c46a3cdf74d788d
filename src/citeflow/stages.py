"""The stages of a run, one function each: artifacts in, artifacts out.

These are what the KFP components call, what `citeflow run` therefore executes here, and what the
subcommands of the same names call. A stage finds its inputs on the volume, calls one function of
the library, and fills in what the run page shows of the result.

All are idempotent: what is there already, by content, is found and not made again; a training that
was stopped is resumed from its last checkpoint.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

from citeflow import config, files, own_model, paths
from citeflow.artifacts import (
    EVAL_REPORT,
    RAW_DATASET,
    SERVING_INDEX,
    TRAINED_MODEL,
    Artifact,
    ClassificationMetrics,
    Metrics,
    component_entrypoint,
    log_metrics,
    resolve_artifact,
    set_metadata,
    write_manifest,
)
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError
from citeflow.kubeflow.params import RunParams, job_request
from citeflow.kubernetes.choice import choose_launcher
from citeflow.kubernetes.job_spec import format_bytes
from citeflow.kubernetes.launchers import LOCAL
from citeflow.paths import RunPaths
from citeflow.reporting import run_page
from citeflow.tasks import dataset_names, get_task, load_settings, task_of
from citeflow.tasks import evaluate as evaluate_model
from citeflow.training import sandbox

PROCESS_BYTES = 512 * 2**20
"""Memory of a process that has imported torch and holds a batch."""

MEMORY_SLACK = 4
"""Limit over request of memory: the size of a dataset is a guess before it is read."""


class Settled(NamedTuple):
    """Decisions of the first stage for all others."""

    sha256: str
    """Digest of the RawDataset."""
    run: str
    """Name of the run."""
    resolved: str
    """All settings, as YAML text."""
    data_resolved: str
    """Those that the PreparedGraph depends on: KFP takes the next stage from its cache by these."""
    memory: str
    """Memory that the stages which hold the graph request, as a Kubernetes quantity."""
    memory_limit: str
    """Limit of their memory."""
    launcher: str
    """What starts the training; no longer `auto`, which another attempt might take otherwise."""
    share: dict[str, str]
    """What every item of an experiment's loop has besides its trials: `trials.Share`."""


def download(
    dataset: str,
    preset: str,
    settings: str,
    predictor: str,
    epochs: float,
    minutes: float,
    workers: int,
    run_name: str,
    out_dir: str,
    run_id: str,
    title: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
    raw: Artifact,
    deploy: str = "",
    task: str = "",
) -> Settled:
    """Check the parameters of the whole run, then bring its dataset onto the volume.

    The arguments are those of the pipeline, `components/download` describes them.
    """
    from citeflow.reporting.publish import check_output_folders
    from citeflow.serving.deploying import service_folder

    with component_entrypoint():
        params = RunParams.checked(
            dataset=dataset,
            preset=preset,
            settings=settings,
            predictor=predictor,
            epochs=epochs,
            minutes=minutes,
            workers=workers,
            run_name=run_name,
            launcher=launcher,
            job=job,
            task=task,
        )
        resolved = own_model.settle(params.config(), Path(data_root))
        chosen_task = get_task(resolved.task)
        run = RunPaths(Path(data_root), run_name or paths.make_name(title, run_id[:8].lower()))
        # A training of an hour must not end with a folder that cannot be written to.
        chosen = choose_launcher(launcher)
        _check_code(resolved, chosen, deploy)
        job_request(chosen, job, workers=workers, run_id=run_id, run_dir=run.folder)
        check_output_folders(run.data_root, _output_folder(run, out_dir))
        if deploy:
            service_folder(run.data_root, deploy)
        folder = chosen_task.download(
            _on_volume(dataset, run.data_root), data_root=run.data_root, settings=resolved
        )
        sha256 = write_manifest(raw, folder, RAW_DATASET, data_root)
        sections = yaml.safe_load(config.to_yaml(resolved))
        data_resolved = yaml.safe_dump(
            {name: sections[name] for name in ("task", "data") if name in sections}
        )
        needed = 3 * PROCESS_BYTES + chosen_task.stage_memory(folder)
        return Settled(
            sha256,
            run.name,
            config.to_yaml(resolved),
            data_resolved,
            format_bytes(needed),
            format_bytes(MEMORY_SLACK * needed),
            chosen,
            {"run": run.name, "run_id": run_id, "launcher": chosen},
        )


def preprocess(
    raw: Artifact,
    raw_sha256: str,
    settings: str,
    *,
    data_root: str,
    graph: Artifact,
) -> str:
    """Read, check, clean and split a RawDataset; return the digest of the prepared data."""
    with component_entrypoint():
        source = resolve_artifact(raw, RAW_DATASET, data_root, raw_sha256)
        resolved = load_settings(text=settings)
        task = get_task(resolved.task)
        folder = task.preprocess(source, data_root=Path(data_root), settings=resolved.to_dict())
        return write_manifest(graph, folder, task.prepared_kind, data_root)


def train(
    graph: Artifact,
    settings: str,
    workers: int,
    run_name: str,
    run_id: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
    model: Artifact,
    metrics: Metrics,
) -> str:
    """Fit a model, here or in a job on the cluster; return the digest of the TrainedModel."""
    with component_entrypoint():
        run = RunPaths(Path(data_root), run_name)
        resolved = load_settings(text=settings)
        task = get_task(resolved.task)
        prepared = resolve_artifact(graph, task.prepared_kind, data_root)
        # Settled by `download`; a pipeline of other components may leave it to this step.
        request = TrainingRequest(choose_launcher(launcher), job, workers, run_id)
        folder = fit(prepared, run, resolved, request)
        sha256 = set_metadata(model, folder, TRAINED_MODEL, data_root)
        model.metadata["launcher"] = request.launcher
        if model.path:
            files.copy_directory(folder, Path(model.path))
        facts = files.read_manifest(folder, TRAINED_MODEL).facts
        names = task.names
        shown = run_page.training_metrics(facts, score=names.score, samples=names.samples)
        log_metrics(metrics, shown)
        return sha256


class TrainingRequest(NamedTuple):
    """A training, and what starts it."""

    launcher: str
    """A launcher, as `download` has settled it."""
    job: str
    """YAML text with the settings of a job."""
    workers: int
    run_id: str


def fit(graph: Path, run: RunPaths, resolved: TaskConfig, request: TrainingRequest) -> Path:
    """Train a run, here or in a job on the cluster; return the TrainedModel."""
    launcher, job, workers, run_id = request
    resolved = own_model.settle(resolved, run.data_root)
    asked = job_request(launcher, job, workers=workers, run_id=run_id, run_dir=run.folder)
    if asked is None:
        from citeflow.training.launch import train_locally
        from citeflow.training.ray_launch import train_on_ray

        train_here = train_locally if launcher == LOCAL else train_on_ray
        return train_here(graph, run, config=resolved, workers=workers)
    from citeflow.kubernetes.launch import train_on_cluster

    return train_on_cluster(graph, run, config=resolved, request=asked)


def evaluate(
    model: Artifact,
    model_sha256: str,
    graph: Artifact,
    *,
    data_root: str,
    report: Artifact,
    metrics: Metrics,
    classification: ClassificationMetrics,
) -> str:
    """Measure a model on the test split; return the digest of the EvalReport."""
    with component_entrypoint():
        trained = resolve_artifact(model, TRAINED_MODEL, data_root, model_sha256)
        task = task_of(trained, TRAINED_MODEL)
        prepared = resolve_artifact(graph, task.prepared_kind, data_root)
        run = RunPaths.of_folder(Path(data_root), trained.parent)
        folder = evaluate_model(trained, data=prepared, run=run)
        sha256 = set_metadata(report, folder, EVAL_REPORT, data_root)
        if report.path:
            files.copy_file(folder / "report.json", Path(report.path))
        results = task.results(folder)
        log_metrics(metrics, results.metrics())
        results.log_curves(classification)
        return sha256


def publish(
    report: Artifact,
    report_sha256: str,
    model: Artifact,
    out_dir: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
) -> Path:
    """Put report, page, model and TensorBoard's logs where people look, and on the run page.

    Returns:
        The folder with report.json, report.html and model/.
    """
    from citeflow.reporting import markdown
    from citeflow.reporting.links import find_links

    with component_entrypoint():
        evaluated = resolve_artifact(report, EVAL_REPORT, data_root, report_sha256)
        trained = resolve_artifact(model, TRAINED_MODEL, data_root)
        run = RunPaths.of_folder(Path(data_root), evaluated.parent)
        out = _output_folder(run, out_dir)
        task = task_of(evaluated, EVAL_REPORT)
        task.publish(evaluated, model=trained, run=run, out=out)
        if page.path:
            files.copy_file(out / "report.html", Path(page.path))
        if summary.path:
            where = {"Run": run.name, "Report and model": out, "TensorBoard logs": run.logs}
            lines = [
                f"- {markdown.escape(name)}: {markdown.escape(str(value))}"
                for name, value in where.items()
            ]
            lines += [f"- [{name}]({url})" for name, url in find_links(run, out).items()]
            text = task.results(out).summary()
            files.write_text(Path(summary.path), "\n".join([text, *lines, ""]))
        # An experiment has other runs, which MLflow being away must not end.
        task.log_to_mlflow(evaluated, model=trained, run=run, out=out, is_required=not run.is_trial)
        return out


def index(
    model: Artifact,
    model_sha256: str,
    graph: Artifact,
    *,
    data_root: str,
    index: Artifact,
    out_dir: str = "",
    deploy: str = "",
) -> str:
    """Write what a server answers from, and deploy it; return the digest of the ServingIndex.

    Args:
        model: a TrainedModel.
        model_sha256: its digest; empty takes that of the artifact.
        graph: the prepared data that it was trained on.
        data_root: where the volume is mounted.
        index: the ServingIndex.
        out_dir: its folder; empty for that in the run's.
        deploy: the service whose servers take it up; empty for none.
    """
    from citeflow.serving import deploying

    with component_entrypoint():
        trained = resolve_artifact(model, TRAINED_MODEL, data_root, model_sha256)
        task = task_of(trained, TRAINED_MODEL)
        run = RunPaths.of_folder(Path(data_root), trained.parent)
        folder = task.write_index(
            trained,
            Path(data_root) / out_dir if out_dir else run.index,
            find_data=lambda: resolve_artifact(graph, task.prepared_kind, data_root),
        )
        if deploy:
            deploying.deploy(folder, deploying.service_folder(run.data_root, deploy))
        return write_manifest(index, folder, SERVING_INDEX, data_root)


def _check_code(settings: TaskConfig, launcher: str, deploy: str) -> None:
    """Check before any work that code of one's own can run, and is asked for no more than it can.

    Raises:
        ConfigError: it cannot.
    """
    if deploy and own_model.has_code(settings):
        raise ConfigError("a model with code of its own cannot be served", deploy)
    if launcher == LOCAL:
        sandbox.require(settings)


def _output_folder(run: RunPaths, out_dir: str) -> Path:
    return run.data_root / out_dir if out_dir else run.published


def _on_volume(dataset: str, data_root: Path) -> str:
    """Let a folder or an archive on the volume be named relative to the data root."""
    is_path = dataset and dataset not in dataset_names() and "://" not in dataset
    path = data_root / dataset
    return str(path) if is_path and path.exists() else dataset
