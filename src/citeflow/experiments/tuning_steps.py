"""What the components of the search for better settings call."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from citeflow import config, files, paths, stages
from citeflow.artifacts import Artifact, Metrics, component_entrypoint, describe, find, log_figures
from citeflow.config import Config
from citeflow.errors import ConfigError, TrainingError
from citeflow.experiments import search_space as spaces
from citeflow.experiments import tuning
from citeflow.experiments.tuning import Definition, Work
from citeflow.kubeflow import params
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE
from citeflow.reporting import tuning as pages
from citeflow.reporting.publish import check_folder
from citeflow.reporting.tuning import Search
from citeflow.utils import termination_message
from citeflow.utils.logging import log

KIND = "TrainedModel"


class Found(NamedTuple):
    """What a search hands on."""

    model_sha256: str
    out_dir: str


@component_entrypoint
def tuning_trials(
    graph: Artifact,
    settings: str,
    space: str,
    trials: int,
    parallel: int,
    workers: int,
    run: str,
    *,
    data_root: str,
) -> list[dict[str, str]]:
    """Begin or continue a study; returns who trains which of its trials, as the items of a loop."""
    spaces.check_trials(trials, parallel)
    if parallel > 1 and "CITEFLOW_POD_NAME" in os.environ and not tuning.is_shared():
        hint = f"SQLite is not safe from several pods: put a database's URL into the Secret citeflow-study as {URL_KEY}"
        raise ConfigError(
            "parallel trials need a database", f"parallel={parallel}", hint=f"{hint}, or take 1"
        )
    check_folder(paths.published_folder(Path(data_root), run))
    base = config.from_yaml(settings)
    prepared = find(graph, "PreparedGraph", data_root)
    definition = Definition(
        base=base,
        space=spaces.from_yaml(space, base),
        workers=workers,
        graph_sha256=str(files.read_manifest(prepared, "PreparedGraph").sha256),
    )
    tuning.prepare(Path(data_root), run, definition, trials)
    log(
        "tune",
        "has trials",
        num=trials,
        parallel=parallel,
        logs=paths.log_folder(Path(data_root), run),
    )
    shares = tuning.shares(trials, parallel)
    return [{"run": run, "trials": " ".join(map(str, numbers))} for numbers in shares]


URL_KEY = "url"
"""Key of the Secret that holds the URL of the study's database."""


@component_entrypoint
def tune_trials(
    graph: Artifact,
    trials: str,
    run: str,
    workers: int,
    run_id: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
) -> str:
    """Train the trials of one share, one after the other; returns their numbers."""
    root, prepared = Path(data_root), find(graph, "PreparedGraph", data_root)

    def train(name: str, settings: Config) -> float:
        run_dir, image = paths.run_folder(root, name), os.environ.get(IMAGE_VARIABLE, IMAGE)
        place = stages.train(
            prepared,
            run_dir=run_dir,
            log_dir=paths.log_folder(root, name),
            config=settings,
            workers=workers,
            request=params.job_request(
                launcher, job, workers=workers, run_id=run_id, image=image, run_dir=run_dir
            ),
        )
        return files.read_manifest(place, KIND).number("valid_mrr")

    work = Work(
        train=train,
        evaluations=lambda name: evaluations(paths.log_folder(root, name)),
        is_stopped=lambda: termination_message.read() is not None,
    )
    tuning.search(root, run, map(int, trials.split()), tuning.definition_of(root, run), work)
    return trials


def evaluations(log_dir: Path) -> Sequence[float]:
    """The validation MRRs that a training has logged so far, each once however often it was started again."""
    from citeflow.reporting import event_files

    found: dict[int, float] = {}
    for path in sorted(log_dir.glob(f"events.out.tfevents.*.{event_files.TRAIN}")):
        again = event_files.first_step(path)
        found = {step: value for step, value in found.items() if again is None or step < again}
        found |= {
            scalar.step: scalar.value for scalar in event_files.read_scalars(path, "valid/mrr")
        }
    return list(found.values())


@component_entrypoint
def tuning_report(
    shares: Sequence[str],
    graph: Artifact,
    run: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
    model: Artifact,
    metrics: Metrics,
) -> Found:
    """Put the trials where people look, and hand on the best one's model."""
    root, num = Path(data_root), sum(len(numbers.split()) for numbers in shares)
    definition = tuning.definition_of(root, run)
    search = Search(
        run=run,
        dataset=str(
            files.read_manifest(find(graph, "PreparedGraph", data_root), "PreparedGraph").facts[
                "dataset"
            ]
        ),
        tried=tuning.tried(root, run, num),
        log_keys=frozenset(
            each.key for each in definition.space if isinstance(each, spaces.Range) and each.log
        ),
    )
    best = search.best
    if best is None:
        errors = [trial.error for trial in search.tried if trial.error]
        raise TrainingError(
            "no trial has ended with a model", run, hint=errors[0] if errors else "see the log"
        )
    out = publish(root, search, definition, best.values, (summary, page))
    place = paths.run_folder(root, tuning.run_name(run, best.number)) / "model"
    sha256 = describe(model, place, KIND, data_root)
    files.copy_directory(place, Path(model.path))
    log_figures(
        metrics,
        {"best valid mrr": best.valid_mrr, "default valid mrr": search.default, "trials": num},
    )
    log("tune", "done", page=out / "tuning.html", best=best.number)
    return Found(sha256, str(out.relative_to(root)))


def publish(
    root: Path,
    search: Search,
    definition: Definition,
    best: Mapping[str, Any],
    shown: tuple[Artifact, Artifact],
) -> Path:
    """Write the page, the tables and the best settings, on the volume and for the run page; returns their folder."""
    out, options = paths.published_folder(root, search.run), spaces.as_options(best)
    text, html = pages.as_markdown(search, options), pages.as_html(search, options)
    settings = config.to_yaml(spaces.configured(definition.base, best))
    files.write_text(
        out / "best.yaml", f"# Best settings of the search {search.run}, for --config.\n{settings}"
    )
    files.write_text(out / "trials.csv", pages.as_csv(search))
    files.write_text(out / "tuning.md", text)
    files.write_text(out / "tuning.html", html)
    files.write_json(out / "tuning.json", {"verdict": pages.verdict(search), "options": options})
    for artifact, content in zip(shown, (text, html), strict=True):
        files.write_text(Path(artifact.path), content)
    return out
