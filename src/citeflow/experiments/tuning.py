"""A search for better settings: an Optuna study whose trials are runs of their own.

All trials are there from the beginning, waiting; a trial's number says which run it is and who trains it. So a search
that was stopped goes on with the same trials: what has ended is left alone, what was begun keeps its settings, and its
training goes on from its checkpoint. Trial 0 is the settings that the search starts from.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from citeflow import config, files, paths
from citeflow.config import Config
from citeflow.errors import ConfigError, NotFoundError, TrainingError, UnavailableError
from citeflow.experiments import search_space as spaces
from citeflow.experiments.search_space import Choice, Parameter, Space, Value
from citeflow.experiments.tuning_pruning import Pruned, pruning
from citeflow.files import Json
from citeflow.reporting.tuning import Tried
from citeflow.utils.logging import log, redact_url

STORAGE_VARIABLE = "CITEFLOW_STUDY_STORAGE"
"""Environment variable with the URL of a database; a file beside the runs is used without it."""

DRIVERS = ("sqlite", "mysql+pymysql", "postgresql+psycopg")
TIMEOUT_S = 30

RANDOM_TRIALS = 4
"""So many trials, trial 0 included, have to end before those that follow learn from them."""

WARM_UP = 0.5
"""Share of the evaluations that no trial is ended before."""

BEGIN = "`citeflow tune` begins one"
DEFINITION = "citeflow"
"""The study's attribute that says what is searched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """What is searched, and how each trial is trained."""

    base: Config
    space: Space
    workers: int
    graph_sha256: str
    """Digest of the PreparedGraph."""

    def to_dict(self) -> Json:
        """Plain values."""
        searched = spaces.to_dict(self.space)
        return {
            "settings": self.base.to_dict(),
            "space": searched,
            "workers": self.workers,
            "graph": self.graph_sha256,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How a trial is trained, and how it is seen to get on."""

    train: Callable[[str, Config], float]
    """Trains the run of a name, and returns its validation MRR."""

    evaluations: Callable[[str], Sequence[float]]
    """The validation MRRs of a run so far."""

    is_stopped: Callable[[], bool] = lambda: False
    """Whether no further trial shall begin."""


def run_name(run: str, number: int) -> str:
    """Name of the run of a trial."""
    return f"{run}/trial-{number:03d}"


@contextlib.contextmanager
def opened(data_root: Path, run: str) -> Iterator[RDBStorage]:
    """The database of a search, for the length of a block.

    Raises:
        NotFoundError: the search has not begun.
        ConfigError: its URL is wrong.
        UnavailableError: it does not answer.
    """
    folder = paths.run_folder(data_root, run)
    if not folder.is_dir():
        raise NotFoundError("no such search", run, hint=BEGIN)
    url = os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{folder / 'study.db'}"
    try:
        driver = sqlalchemy.engine.make_url(url).drivername
    except SQLAlchemyError:
        driver = ""
    if driver not in DRIVERS:
        raise ConfigError(
            STORAGE_VARIABLE,
            redact_url(url),
            hint=f"a URL that begins with {', '.join(DRIVERS)}",
        )
    wait = {"timeout": TIMEOUT_S} if driver == "sqlite" else {"connect_timeout": TIMEOUT_S}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(url, engine_kwargs={"connect_args": wait, "pool_pre_ping": True})
    except (SQLAlchemyError, OptunaError) as error:
        why = str(error.__cause__ or error).splitlines()[0]
        raise UnavailableError(
            "the study's database does not answer", redact_url(url), hint=why
        ) from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def is_shared() -> bool:
    """Whether the database is one that several machines can write to."""
    return not os.environ.get(STORAGE_VARIABLE, "sqlite:").startswith("sqlite:")


def prepare(data_root: Path, run: str, definition: Definition, trials: int) -> None:
    """Create a study, or find the one of this name, and see to it that it has so many trials.

    Raises:
        ConfigError: there is a study of this name that searches something else.
        UnavailableError: its database does not answer.
    """
    lock = paths.run_folder(data_root, run) / "study.lock"
    with files.exclusive(lock, wait_s=TIMEOUT_S), opened(data_root, run) as storage:
        study = optuna.create_study(
            study_name=run, storage=storage, direction="maximize", load_if_exists=True
        )
        wanted = definition.to_dict()
        if _compared(study.user_attrs.get(DEFINITION, wanted)) != _compared(wanted):
            hint = "take another run name, or the dataset, settings, space and workers that it began with"
            raise ConfigError("another search has this name", run, hint=hint)
        study.set_user_attr(DEFINITION, wanted)
        values = spaces.of(definition.base, definition.space)
        for number in range(len(study.get_trials(deepcopy=False)), trials):
            study.enqueue_trial(values if number == 0 and _has_base(definition) else {})


def _has_base(definition: Definition) -> bool:
    """Whether the settings that a search starts from lie within its space."""
    values = spaces.of(definition.base, definition.space)
    return all(values[parameter.key] in parameter for parameter in definition.space)


def _compared(definition: Json) -> Json:
    """A definition without the settings with which a search may go on as it likes."""
    settings = {
        name: values for name, values in definition["settings"].items() if name != "recovery"
    }
    return {**definition, "settings": settings}


def shares(trials: int, parallel: int) -> list[list[int]]:
    """The numbers of the trials, dealt to those who train them."""
    return [list(range(first, trials, parallel)) for first in range(min(parallel, trials))]


def search(
    data_root: Path, run: str, numbers: Iterable[int], definition: Definition, work: Work
) -> None:
    """Train some of a study's trials one after the other; those that have ended are left alone.

    Nobody else may train the same ones meanwhile.

    Raises:
        CiteflowError: whatever ended a training, but for a TrainingError, which is the trial's own.
    """
    with opened(data_root, run) as storage:
        study = _load(storage, run, pruner=_pruner(definition.base))
        for number in numbers:
            if work.is_stopped():
                break
            study.sampler = _sampler(definition.base.train.seed, number)
            trial = _begin(study, storage, number)
            if trial:
                _try(study, trial, run, definition, work)


def _begin(study: Any, storage: RDBStorage, number: int) -> Any:
    """The trial of a number, running; None where it has ended."""
    trial_id = storage.get_trial_id_from_study_id_trial_number(
        storage.get_study_id_from_name(study.study_name), number
    )
    state = study.get_trials(deepcopy=False)[
        number
    ].state  # which Trial relies on: the study's storage knows it by now
    if state.is_finished():
        log("tune", "has ended before", trial=number, state=state.name.lower())
        return None
    if state == TrialState.WAITING:
        storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    return optuna.trial.Trial(study, trial_id)


def _try(study: Any, trial: Any, run: str, definition: Definition, work: Work) -> None:
    """Train one trial, and tell the study what became of it."""
    name = run_name(run, trial.number)
    values = _values(trial, definition)
    log("tune", "trial begins", trial=trial.number, **values)
    trial.set_user_attr("values", values)
    settings = spaces.configured(definition.base, values)
    state, mrr, began, before = (
        TrialState.COMPLETE,
        None,
        time.monotonic(),
        trial.user_attrs.get("seconds", 0.0),
    )
    try:
        with pruning(trial, lambda: work.evaluations(name), may_end=trial.number > 0):
            mrr = work.train(name, settings)
    except Pruned:
        state = TrialState.PRUNED
    except TrainingError as error:
        state = TrialState.FAIL
        trial.set_user_attr("error", f"{error.what}: {error.value}")
    finally:
        trial.set_user_attr("seconds", before + time.monotonic() - began)
    study.tell(trial, mrr, state=state)
    told = {} if mrr is None else {"valid_mrr": mrr}
    log("tune", f"trial {state.name.lower()}", trial=trial.number, **told)


def _values(trial: Any, definition: Definition) -> dict[str, Value]:
    """The values of a trial at the keys of the space; trial 0 has the base's, even where the space lacks them."""
    if trial.number == 0 and not _has_base(definition):
        return spaces.of(definition.base, definition.space)
    return {parameter.key: _suggest(trial, parameter) for parameter in definition.space}


def _suggest(trial: Any, parameter: Parameter) -> Value:
    if isinstance(parameter, Choice):
        value: Value = trial.suggest_categorical(parameter.key, parameter.values)
        return value
    suggest = trial.suggest_int if parameter.is_whole else trial.suggest_float
    number: float = suggest(parameter.key, *parameter.bounds, log=parameter.log)
    return (
        number
        if parameter.is_whole
        else max(parameter.low, min(parameter.high, float(f"{number:.6g}")))
    )


def _sampler(seed: int, number: int) -> Any:
    """A sampler for one trial, the same however often the search was stopped before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
            n_startup_trials=RANDOM_TRIALS,
            multivariate=True,
            constant_liar=True,
        )


def _pruner(base: Config) -> Any:
    """Ends a trial that is worse than the median of the others at the same evaluation."""
    return optuna.pruners.MedianPruner(
        n_startup_trials=RANDOM_TRIALS,
        n_warmup_steps=round(WARM_UP * base.train.num_validations),
        n_min_trials=3,
    )


def definition_of(data_root: Path, run: str) -> Definition:
    """What a study searches.

    Raises:
        NotFoundError: there is no such study.
    """
    with opened(data_root, run) as storage:
        content = _load(storage, run).user_attrs[DEFINITION]
    base = config.from_dict(content["settings"])
    searched = spaces.from_dict(content["space"], base)
    return Definition(
        base=base, space=searched, workers=content["workers"], graph_sha256=content["graph"]
    )


def tried(data_root: Path, run: str, trials: int) -> list[Tried]:
    """What became of the first trials of a study, and of all later ones that have ended.

    Raises:
        NotFoundError: there is no such study.
    """
    with opened(data_root, run) as storage:
        found = _load(storage, run).get_trials(deepcopy=False)
    return [_tried(trial) for trial in found if trial.number < trials or trial.state.is_finished()]


def _tried(trial: Any) -> Tried:
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    return Tried(
        number=trial.number,
        state=trial.state.name.lower(),
        valid_mrr=trial.value if trial.state == TrialState.COMPLETE else None,
        values=trial.user_attrs.get("values", {}),
        seconds=trial.user_attrs.get("seconds"),
        evaluations=curve,
        error=trial.user_attrs.get("error", ""),
    )


def _load(storage: RDBStorage, run: str, **options: Any) -> Any:
    try:
        return optuna.load_study(study_name=run, storage=storage, **options)
    except KeyError:
        raise NotFoundError("no such search", run, hint=BEGIN) from None
