"""The Optuna study of a tuning experiment, whose trials are runs of their own.

All trials are enqueued when the study is created, and a trial's number decides which run it is and
which process trains it. So a search that was stopped is resumed with the same trials: those that
have ended are left alone, the one that was running keeps its settings and is resumed from its
checkpoint. Trial 0 has the settings that the search starts from.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import yaml
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from citeflow import config, files
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError, NotFoundError, TrainingError, UnavailableError
from citeflow.experiments import search_space
from citeflow.experiments.pruning import Pruned, pruning
from citeflow.experiments.search_space import Space, Value
from citeflow.paths import RunPaths
from citeflow.tasks import get_task, load_settings
from citeflow.utils.logging import log, redact_url

STORAGE_VARIABLE = "CITEFLOW_STUDY_STORAGE"
"""Environment variable with the URL of a database; without it, a SQLite file beside the runs."""

DRIVERS = ("sqlite", "mysql+pymysql", "postgresql+psycopg")
TIMEOUT_S = 30

STARTUP_TRIALS = 4
"""Trials, trial 0 included, that have to end before sampler and pruner use their results."""

WARM_UP = 0.5
"""Share of the validations before which no trial is pruned."""

DEFINITION = "citeflow"
"""Attribute of the study that holds its definition."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """The space of a study, and what all of its trials share."""

    base: TaskConfig
    """Settings that the search starts from."""

    space: Space
    workers: int
    graph_sha256: str
    """Digest of the prepared data."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for an attribute of the study."""
        return {
            "settings": yaml.safe_load(config.to_yaml(self.base)),
            "space": search_space.to_dict(self.space),
            "workers": self.workers,
            "graph": self.graph_sha256,
        }


def trial_run(run: RunPaths, number: int) -> RunPaths:
    """Return the paths of a trial's run."""
    return RunPaths(run.data_root, f"{run.name}/trial-{number:03d}")


def split_trials(trials: int, parallel: int) -> list[list[int]]:
    """Divide the numbers of the trials among processes."""
    return [list(range(first, trials, parallel)) for first in range(min(parallel, trials))]


def is_shared() -> bool:
    """Return whether several machines can write to the configured database."""
    return not os.environ.get(STORAGE_VARIABLE, "sqlite:").startswith("sqlite:")


@contextlib.contextmanager
def open_storage(run: RunPaths) -> Iterator[RDBStorage]:
    """Open the database of a search for the length of a block.

    Raises:
        NotFoundError: there is no such search.
        ConfigError: its URL is wrong.
        UnavailableError: it does not answer.
    """
    if not run.folder.is_dir():
        raise NotFoundError("no such search", run.name, hint="`citeflow tune` starts one")
    url = os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{run.folder / 'study.db'}"
    try:
        driver = sqlalchemy.engine.make_url(url).drivername
    except SQLAlchemyError:
        driver = ""
    if driver not in DRIVERS:
        hint = f"a URL that begins with {', '.join(DRIVERS)}"
        raise ConfigError(STORAGE_VARIABLE, redact_url(url), hint=hint)
    wait = {"timeout": TIMEOUT_S} if driver == "sqlite" else {"connect_timeout": TIMEOUT_S}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(url, engine_kwargs={"connect_args": wait, "pool_pre_ping": True})
    except (SQLAlchemyError, OptunaError) as error:
        why = str(error.__cause__ or error).splitlines()[0]
        message = "the study's database does not answer"
        raise UnavailableError(message, redact_url(url), hint=why) from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def create_or_resume(run: RunPaths, definition: Definition, trials: int) -> None:
    """Create a study, or load the one of this name, and enqueue what it lacks of its trials.

    Raises:
        ConfigError: there is a study of this name with another definition.
        UnavailableError: its database does not answer.
    """
    # The lock: two processes that enqueue at a time would both find too few trials.
    lock = files.exclusive(run.folder / "study.lock", wait_s=TIMEOUT_S)
    with lock, open_storage(run) as storage:
        study = optuna.create_study(
            study_name=run.name, storage=storage, direction="maximize", load_if_exists=True
        )
        wanted = definition.to_dict()
        if _compared(study.user_attrs.get(DEFINITION, wanted)) != _compared(wanted):
            hint = "another run name, or the dataset, settings, space and workers it began with"
            raise ConfigError("another search has this name", run.name, hint=hint)
        study.set_user_attr(DEFINITION, wanted)
        has_base = search_space.contains(definition.space, definition.base)
        base_values = search_space.values_of(definition.base, definition.space)
        for number in range(len(study.get_trials(deepcopy=False)), trials):
            study.enqueue_trial(base_values if number == 0 and has_base else {})


def _compared(definition: Mapping[str, Any]) -> dict[str, object]:
    """Return a definition without the settings that may change when a search is resumed."""
    settings = {name: each for name, each in definition["settings"].items() if name != "recovery"}
    return {**definition, "settings": settings}


def read_definition(run: RunPaths) -> Definition:
    """Read the definition of a study.

    Raises:
        NotFoundError: there is no such study.
    """
    with open_storage(run) as storage:
        content = _load(storage, run).user_attrs[DEFINITION]
    base = load_settings(text=yaml.safe_dump(content["settings"]))
    return Definition(
        base=base,
        space=search_space.from_dict(content["space"], base),
        workers=content["workers"],
        graph_sha256=content["graph"],
    )


def read_trials(run: RunPaths, trials: int) -> list[FrozenTrial]:
    """Read the first trials of a study, and all later ones that have ended.

    Raises:
        NotFoundError: there is no such study.
    """
    with open_storage(run) as storage:
        found = _load(storage, run).get_trials(deepcopy=False)
    return [trial for trial in found if trial.number < trials or trial.state.is_finished()]


def search(
    run: RunPaths,
    numbers: Iterable[int],
    definition: Definition,
    *,
    train: Callable[[RunPaths, TaskConfig], float],
    read_validations: Callable[[RunPaths], Sequence[float]],
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Train some of a study's trials one after the other; those that have ended are left alone.

    No other process may train the same ones meanwhile.

    Args:
        run: paths of the search.
        numbers: numbers of the trials.
        definition: definition of the study.
        train: trains a run, and returns its validation score.
        read_validations: reads the validation scores of a run so far.
        is_stopped: whether no further trial may start.

    Raises:
        CiteflowError: a training, or `is_stopped`, ended with it; a TrainingError is the trial's
            own, and recorded.
    """
    with open_storage(run) as storage:
        study = _load(storage, run, pruner=_pruner(definition.base))
        for number in numbers:
            if is_stopped():
                break
            study.sampler = _sampler(_train_setting(definition.base, "seed"), number)
            trial = _start_trial(study, storage, number)
            if trial is not None:
                _train_trial(trial, run, definition, train, read_validations)


def _start_trial(study: optuna.Study, storage: RDBStorage, number: int) -> Trial | None:
    """Return the trial of a number in the state RUNNING; None where it has ended."""
    study_id = storage.get_study_id_from_name(study.study_name)
    trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    # Reading all trials also fills the cache of the study's storage, which Trial relies on.
    state = study.get_trials(deepcopy=False)[number].state
    if state.is_finished():
        log("tune", "has ended before", trial=number, state=state.name.lower())
        return None
    if state == TrialState.WAITING:
        storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    return Trial(study, trial_id)


def _train_trial(
    trial: Trial,
    run: RunPaths,
    definition: Definition,
    train: Callable[[RunPaths, TaskConfig], float],
    read_validations: Callable[[RunPaths], Sequence[float]],
) -> None:
    """Train one trial, and record its end in the study."""
    paths = trial_run(run, trial.number)
    values = _suggest_values(trial, definition)
    log("tune", "trial starts", trial=trial.number, **values)
    trial.set_user_attr("values", values)
    settings = search_space.apply(definition.base, values)
    state = TrialState.COMPLETE
    score = None
    spent_s = trial.user_attrs.get("seconds", 0.0)  # before the search was stopped
    started = time.monotonic()
    try:
        with pruning(trial, lambda: read_validations(paths), may_prune=trial.number > 0):
            score = train(paths, settings)
    except Pruned:
        state = TrialState.PRUNED
    except TrainingError as error:
        state = TrialState.FAIL
        trial.set_user_attr("error", f"{error.what}: {error.value}")
    finally:
        trial.set_user_attr("seconds", spent_s + time.monotonic() - started)
    trial.study.tell(trial, score, state=state)
    name = get_task(definition.base.task).names.score
    reached = {} if score is None else {name: score}
    log("tune", f"trial {state.name.lower()}", trial=trial.number, **reached)


def _suggest_values(trial: Trial, definition: Definition) -> dict[str, Value]:
    """Sample the values of a trial; trial 0 has the base's, even where the space lacks them."""
    space = definition.space
    if trial.number == 0 and not search_space.contains(space, definition.base):
        return search_space.values_of(definition.base, space)
    values: dict[str, Value] = {}
    for key, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            value: Value = trial.suggest_categorical(key, distribution.choices)  # type: ignore[assignment]
            values[key] = value
        elif isinstance(distribution, IntDistribution):
            low, high = distribution.low, distribution.high
            values[key] = trial.suggest_int(key, low, high, log=distribution.log)
        else:
            lowest = distribution.low
            highest = distribution.high
            number = trial.suggest_float(key, lowest, highest, log=distribution.log)
            # Six digits can be copied by a person, and rounding must not leave the bounds.
            values[key] = max(lowest, min(highest, float(f"{number:.6g}")))
    return values


def _sampler(seed: int, number: int) -> optuna.samplers.TPESampler:
    """Make a sampler for one trial, the same however often the search was stopped before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
            n_startup_trials=STARTUP_TRIALS,
            multivariate=True,
            constant_liar=True,
        )


def _train_setting(base: TaskConfig, name: str) -> int:
    return int(search_space.value_of(base, f"train.{name}"))


def _pruner(base: TaskConfig) -> optuna.pruners.MedianPruner:
    """Make a pruner that ends trials worse than the median of the others at the same validation."""
    return optuna.pruners.MedianPruner(
        n_startup_trials=STARTUP_TRIALS,
        n_warmup_steps=round(WARM_UP * _train_setting(base, "num_validations")),
        n_min_trials=3,
    )


def _load(
    storage: RDBStorage, run: RunPaths, pruner: optuna.pruners.BasePruner | None = None
) -> optuna.Study:
    try:
        return optuna.load_study(study_name=run.name, storage=storage, pruner=pruner)
    except KeyError:
        raise NotFoundError("no such search", run.name, hint="`citeflow tune` starts one") from None
