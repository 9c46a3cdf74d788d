"""`citeflow scaling`, `compare` and `tune`: many runs on this machine, and one table of them."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click
import yaml

from citeflow import config, files, own_model
from citeflow.cli import options
from citeflow.cli.local_run import LocalRun, bring_files, local_run
from citeflow.config import TaskConfig
from citeflow.paths import RunPaths
from citeflow.tasks import TASKS, get_task
from citeflow.utils import records
from citeflow.utils.logging import emit

INSTALL_TUNE = "pip install '.[train,kfp,tune]' in a checkout of citeflow"


@click.command(cls=options.RecordCommand)
@click.option("--workers", type=options.Numbers(), default="1,2", show_default=True)
@click.option("--epochs", type=options.Numbers(), default="10", show_default=True)
@options.output
@local_run
@options.settings
def scaling(
    workers: list[float],
    epochs: list[float],
    out: Path | None,
    local: LocalRun,
    settings: options.Settings,
) -> None:
    """Train with several numbers of workers and of epochs."""
    paths = local.paths()
    folder = out or paths.published
    own = {"workers": workers, "epochs": epochs, "out_dir": str(folder)}
    _run_pipeline("scaling", own, paths=paths, local=local, settings=settings.resolve())
    _report_table(folder, "scaling", paths)


@click.command(cls=options.RecordCommand)
@click.option(
    "--models",
    type=options.YamlText(),
    help="Settings of each model by name: a YAML file, or text such as"
    " '{sage: {}, dot: {model: {predictor: dot}}}'; by default the predictors, and features alone;"
    " of images, all architectures.",
)
@click.option("--seeds", type=options.Numbers(), default="0,1,2", show_default=True)
@options.workers
@options.output
@local_run
@options.settings
def compare(
    models: str | None,
    seeds: list[float],
    workers: int,
    out: Path | None,
    local: LocalRun,
    settings: options.Settings,
) -> None:
    """Train several models with several seeds."""
    paths = local.paths()
    folder = out or paths.published
    own: dict[str, object] = {"seeds": seeds, "workers": workers, "out_dir": str(folder)}
    resolved = settings.resolve()
    own["models"] = _with_digests(models, resolved, local) or get_task(resolved.task).models
    _run_pipeline("compare", own, paths=paths, local=local, settings=resolved)
    _report_table(folder, "comparison", paths)


def _with_digests(models: str | None, settings: TaskConfig, local: LocalRun) -> str:
    """Bring the files that some models name; return the models with digests in place of paths."""
    values = records.parse_yaml(models or "", "models")
    is_changed = False
    for changes in values.values():
        part = changes.get("model") if isinstance(changes, dict) else None
        if isinstance(part, dict) and part.keys() & own_model.SUFFIXES.keys():
            named = config.changed(settings, {"model": part})
            brought = bring_files(named, local.data_root, trust_code=local.trust_code)
            part.update(own_model.names(brought))
            is_changed = True
    return yaml.safe_dump(values, sort_keys=False) if is_changed else models or ""


SPACES = "The space that is searched without --space:\n\n" + "\n".join(
    f"\b\n{name}\n{task.search_space}" for name, task in TASKS.items()
)


@click.command(cls=options.RecordCommand, epilog=SPACES)
@click.option(
    "--space",
    type=options.YamlText(),
    default="",
    help="Settings to search: a YAML file, or text such as"
    " '{train.lr: {low: 0.001, high: 0.1, log: true}, model.hidden_channels: [64, 128]}'.",
)
@click.option("--trials", type=options.POSITIVE, default=12, show_default=True, metavar="N")
@click.option(
    "--parallel",
    type=options.POSITIVE,
    default=1,
    show_default=True,
    metavar="N",
    help="Trials at a time.",
)
@click.option(
    "--workers",
    type=options.POSITIVE,
    default=1,
    show_default=True,
    metavar="N",
    help="Training processes of each trial.",
)
@local_run
@options.settings
def tune(
    space: str,
    trials: int,
    parallel: int,
    workers: int,
    local: LocalRun,
    settings: options.Settings,
) -> None:
    """Search for better settings on this machine.

    Trials are compared by validation MRR among random papers; --set evaluation.protocol=all, hard
    or cold takes another protocol's.
    """
    options.require("kfp", "torch")
    options.require("optuna", hint=INSTALL_TUNE)
    from citeflow.experiments.tuning import SUMMARY, Summary

    paths = local.paths()
    own = {"space": space, "trials": trials, "parallel": parallel, "workers": workers}
    resolved = settings.resolve()
    _run_pipeline("tune", own, paths=paths, local=local, settings=resolved)
    folder = paths.published
    _print_table(folder / "tuning.md")
    results = get_task(resolved.task).results(folder)
    protocols = results.report.compared().mrr_by_protocol
    summary = records.load(Summary, files.read_json(folder / SUMMARY), name=SUMMARY)
    emit(
        {
            "page": str(folder / "tuning.html"),
            "trials": str(folder / "trials.csv"),
            "settings": str(folder / "best.yaml"),
            "report": str(folder / "report.html"),
            "model": str(folder / "model"),
            "logs": str(paths.logs),
            **summary.model_dump(exclude_defaults=True),
            "test": results.test(),
            **({"test_mrr_by_protocol": protocols} if protocols else {}),
        }
    )


def _run_pipeline(
    name: str,
    own: Mapping[str, object],
    *,
    paths: RunPaths,
    local: LocalRun,
    settings: TaskConfig,
) -> None:
    """Check the parameters of an experiment's pipeline and run it on this machine.

    Args:
        name: one of PIPELINES.
        own: the parameters that a single run does not have.
        paths: those of the experiment.
        local: the dataset, and how to run.
        settings: those that all runs have in common.
    """
    options.require("kfp", "torch")
    from citeflow.kubeflow.local_runner import run_pipeline
    from citeflow.kubeflow.pipelines import PIPELINES
    from citeflow.kubeflow.submit import typed_parameters
    from citeflow.reporting import mlflow_client
    from citeflow.reporting.publish import check_folder

    mlflow_client.check()
    check_folder(paths.data_root)
    shared = local.arguments(paths, settings)
    compiled = PIPELINES[name].compiled()
    arguments = typed_parameters(compiled.read_text(), {**shared, **own})
    PIPELINES[name].validate(arguments)
    with local.started(paths):
        run_pipeline(compiled, arguments, scratch=paths.data_root, verbose=local.verbose)


def _report_table(folder: Path, stem: str, paths: RunPaths) -> None:
    """Print an experiment's table for people, and the paths of its results for programs."""
    _print_table(folder / f"{stem}.md")
    emit(
        {
            "table": str(folder / f"{stem}.csv"),
            "page": str(folder / f"{stem}.html"),
            "logs": str(paths.logs),
        }
    )


def _print_table(markdown: Path) -> None:
    print(f"\n{markdown.read_text()}", file=sys.stderr, flush=True)
