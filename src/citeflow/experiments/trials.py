"""The trials of an experiment: which trainings there are, and their results.

A trial is a whole run, named `<experiment>/<trial>`, as are its folders below `runs` and `logs`.
TensorBoard shows all trials of an experiment on common axes with `--logdir logs/<experiment>`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from citeflow import config, files, paths
from citeflow.artifacts import EVAL_REPORT, Artifact
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError, CorruptError
from citeflow.kubernetes.job_spec import MAX_WORKERS
from citeflow.paths import RunPaths
from citeflow.report import ComparedReport, Curves, RunReport
from citeflow.reporting.links import REPORTS, VARIABLES, find_links
from citeflow.tasks import get_task, load_settings
from citeflow.utils import records
from citeflow.utils.logging import log
from citeflow.utils.records import Int, Record, Str, convert

MAX_TRIALS = 1000
"""Trials of one experiment."""

NAME_TAKEN = "another experiment has used this name meanwhile; repeat this one under another"

OWNER = "experiment.json"
"""The pipeline run that the experiment's name belongs to: the last that began."""

PLAN = "trials.json"
"""The trials, in the folder of the experiment: a parameter of KFP has no room for many."""

MODELS_HINT = 'names and their settings, such as "{sage: {}, dot: {model: {predictor: dot}}}"'

Number = TypeVar("Number", int, float)
Share = dict[str, str]
"""Trials that one step runs, as an item of a KFP loop, which has to be plain values.

Besides `trials` it has what `download` has settled for all of them: `run`, the experiment's name,
`run_id` and `launcher`.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training of an experiment."""

    run_name: str
    workers: int
    config: TaskConfig

    @property
    def name(self) -> str:
        """Name of the trial, without that of the experiment."""
        return self.run_name.partition("/")[2]


T = TypeVar("T", bound=RunReport, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T]):
    """The result of a trial."""

    name: str
    """Name of the trial, without that of the experiment."""

    report: T
    curves: Curves


def scaling_trials(
    settings: str, run: str, workers: Sequence[object], epochs: Sequence[object]
) -> list[Trial]:
    """Plan a trial for each number of workers and each number of epochs.

    A trial is named like `m-1-w-3-e-10`: one master, 3 more workers, 10 epochs.

    Args:
        settings: YAML text with the settings of all trials, but for the epochs.
        run: name of the experiment.
        workers: numbers of workers, each once.
        epochs: passes over the training citations, each once.

    Raises:
        ConfigError: a number is wrong, or none is given.
    """
    base = load_settings(text=settings)
    lengths = _sorted_numbers("epochs", epochs, float)
    sizes = _sorted_numbers("workers", workers, int)
    if lengths[0] <= 0:
        raise ConfigError("epochs", lengths[0], hint="must be above 0")
    if sizes[0] < 1:
        raise ConfigError("workers", sizes[0], hint="must be 1 or more")
    if sizes[-1] > MAX_WORKERS or len(sizes) * len(lengths) > MAX_TRIALS:
        hint = f"at most {MAX_WORKERS} workers and {MAX_TRIALS} trials"
        raise ConfigError("workers", sizes[-1], hint=hint)
    trials = []
    for length in lengths:
        # Trainings of one length compare; those of one duration would not.
        trial_config = config.changed(base, {"train": {"epochs": length, "minutes": 0.0}})
        for size in sizes:
            text = str(int(length)) if length.is_integer() else str(length)
            name = f"m-1-w-{size - 1}-e-{text}".replace(".", "-")
            trials.append(Trial(run_name=_run_name(run, name), workers=size, config=trial_config))
    return trials


def comparison_trials(
    settings: str, run: str, models: str, seeds: Sequence[object], workers: int
) -> list[Trial]:
    """Plan a trial for each model and each seed, named like `dot-seed-0`.

    Args:
        settings: YAML text with the settings that all models share.
        run: name of the experiment.
        models: YAML text with the settings of each model by its name.
        seeds: seeds of weights, batches, negatives and dropout, each once.
        workers: training processes of each trial.

    Raises:
        ConfigError: a name, a setting or a seed is wrong, or none is given.
    """
    base = load_settings(text=settings)
    numbers = _sorted_numbers("seeds", seeds, int)
    if numbers[0] < 0:
        raise ConfigError("seeds", numbers[0], hint="must be 0 or more")
    variants = {
        name: config.changed(base, changes) for name, changes in parse_models(models).items()
    }
    return [
        Trial(
            run_name=_run_name(run, f"{name}-seed-{seed}"),
            workers=workers,
            config=config.changed(variant, {"train": {"seed": seed}}),
        )
        for name, variant in variants.items()
        for seed in numbers
    ]


def parse_models(text: str) -> dict[str, Mapping[str, object]]:
    """Parse the models of a comparison: the settings of each by its name.

    Raises:
        ConfigError: it is not YAML of this form, or there are fewer than two.
    """
    values = records.parse_yaml(text, "models")
    if len(values) < 2:
        raise ConfigError("not two models or more", text.strip(), hint=MODELS_HINT)
    models: dict[str, Mapping[str, object]] = {}
    for name, changes in values.items():
        if not isinstance(name, str):
            raise ConfigError("name of a model", name, hint="put it into quotes")
        paths.check_name(name)
        models[name] = _check_changes(name, {} if changes is None else changes)
    return models


def _check_changes(name: str, changes: object) -> Mapping[str, object]:
    """Refuse settings that would give the models different data or seeds."""
    if not isinstance(changes, Mapping):
        raise ConfigError(f"settings of the model {name}", changes, hint=MODELS_HINT)
    if sections := changes.keys() & {"data", "synthetic", "generated", "evaluation"}:
        hint = "all models have the same data and protocol: use --set"
        raise ConfigError(f"the model {name} sets", ", ".join(sections), hint=hint)
    train = changes.get("train")
    if isinstance(train, Mapping) and "seed" in train:
        hint = "every model has every seed: use --seeds"
        raise ConfigError(f"the model {name} sets", "train.seed", hint=hint)
    return changes


def start(
    command: str, trials: Sequence[Trial], share: Share, parallel: int, *, data_root: str
) -> list[Share]:
    """Check that the results can be written before anything is trained, and write the plan.

    Args:
        command: name of the experiment's command, for the log.
        trials: all trials.
        share: what every item of the loop has.
        parallel: number of items, at most.
        data_root: mount path of the shared volume.

    Returns:
        The items of the loop, with the names of the trials of each.
    """
    from citeflow.reporting.publish import check_output_folders

    check_parallel(parallel)
    run = RunPaths(Path(data_root), share["run"])
    check_output_folders(run.data_root, run.published)
    take_name(run, share["run_id"])
    plan = [
        {"name": each.name, "workers": each.workers, "settings": config.to_yaml(each.config)}
        for each in trials
    ]
    files.write_json(run.folder / PLAN, {"trials": plan})
    log(command, "has trials", num=len(trials), parallel=parallel, logs=run.logs)
    names = [trial.name for trial in trials]
    each = [names[first::parallel] for first in range(min(parallel, len(names)))]
    return [{**share, "trials": " ".join(chosen)} for chosen in each]


def take_name(run: RunPaths, run_id: str) -> None:
    """Give the name of an experiment to a pipeline run.

    The run that had it before trains no further trial: two would mix their settings.
    """
    files.write_json(run.folder / OWNER, _Owner(run_id=run_id).model_dump())


def check_name_held(run: RunPaths, run_id: str) -> None:
    """Check, before each trial, that the experiment's name still belongs to a pipeline run.

    Raises:
        ConfigError: another has taken it.
    """
    file = run.folder / OWNER
    owner = records.load(_Owner, files.read_json(file), name=str(file), error=CorruptError)
    if owner.run_id != run_id:
        hint = f"it belongs to run {owner.run_id} by now; repeat this one under another name"
        raise ConfigError("another experiment has taken the name", run.name, hint=hint)


def check_parallel(parallel: int) -> None:
    """Check how many steps train at a time.

    Raises:
        ConfigError: it is not positive.
    """
    if parallel < 1:
        raise ConfigError("parallel", parallel, hint="must be 1 or more")


def read_plan(run: RunPaths) -> list[Trial]:
    """Read the trials of an experiment that `start` wrote.

    Raises:
        NotFoundError: there is no such experiment.
        CorruptError: it is not what `start` writes.
    """
    file = run.folder / PLAN
    plan = records.load(_Plan, files.read_json(file), name=str(file), error=CorruptError)
    return [
        Trial(
            run_name=_run_name(run.name, each.name),
            workers=each.workers,
            config=load_settings(text=each.settings),
        )
        for each in plan.trials
    ]


class _Owner(Record):
    run_id: Str


class _PlannedTrial(Record):
    name: Str
    workers: Int
    settings: Str


class _Plan(Record):
    trials: tuple[_PlannedTrial, ...]


def read_outcomes(run: RunPaths, sha256s: Iterable[str]) -> list[Outcome[ComparedReport]]:
    """Read the reports of an experiment's trials from the volume.

    Args:
        run: paths of the experiment.
        sha256s: digests of the EvalReports that its steps made, in any order; several in one text.

    Raises:
        NotFoundError: a report is missing.
        CorruptError: one is damaged, or was made by another experiment.
    """
    made = set(" ".join(sha256s).split())
    outcomes = []
    for trial in read_plan(run):
        folder = RunPaths(run.data_root, trial.run_name).report
        if files.verify(folder, EVAL_REPORT).sha256 not in made:
            what = "not the report that this experiment made"
            raise CorruptError(what, folder, hint=NAME_TAKEN)
        report = get_task(trial.config.task).results(folder).report
        outcomes.append(Outcome(name=trial.name, report=report, curves=Curves.read(folder)))
    return outcomes


def write_results(
    run: RunPaths, out_dir: str, texts: Mapping[str, str], *, summary: Artifact, page: Artifact
) -> Path:
    """Write the results of an experiment to the volume, and Markdown and HTML to the run page.

    Args:
        run: paths of the experiment.
        out_dir: folder relative to the data root; empty takes the experiment's own.
        texts: content by name of the file; one ends with .md, one with .html.
        summary: artifact for the Markdown, with links to where all trials are shown.
        page: artifact for the HTML.

    Returns:
        The folder.
    """
    out = run.data_root / out_dir if out_dir else run.published
    found = {name: url for name, url in find_links(run, out).items() if name != VARIABLES[REPORTS]}
    links = "".join(f"\n- [{name}]({url})" for name, url in found.items())
    for name, text in texts.items():
        files.write_text(out / name, text)
        if name.endswith(".md"):
            files.write_text(Path(summary.path), f"{text}{links}")
        if name.endswith(".html"):
            files.write_text(Path(page.path), text)
    return out


def _run_name(run: str, trial: str) -> str:
    return f"{paths.check_name(run)}/{paths.check_name(trial)}"


def _sorted_numbers(name: str, values: Sequence[object], kind: type[Number]) -> list[Number]:
    numbers: list[Number] = sorted(convert(name, value, kind) for value in values)
    if not 0 < len(numbers) <= MAX_TRIALS or len(set(numbers)) < len(numbers):
        raise ConfigError(name, list(values), hint="one number or more, each once")
    return numbers
