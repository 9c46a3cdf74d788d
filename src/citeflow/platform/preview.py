"""The needs of a run, told before it is submitted: the job of a cluster, memory, time."""

from pathlib import Path

import yaml

from citeflow.config import CITATION, Config, TaskConfig
from citeflow.paths import RunPaths
from citeflow.platform.backends.base import Submitted
from citeflow.tasks import load_settings

OGBL_CITATION2 = (2_927_963, 30_561_187)
"""Papers and citations."""

WALK_OF_SOURCE = 15.6
WALK_OF_HELD_OUT = 11.0
"""Papers on a walk of two hops, by the square of the mean length of a reference list; that of
`synthetic`, whose shape is ogbl-citation2's, was measured."""

SIMILAR = 1.17
"""Entries of the similarity graph per paper and `data.num_similar`, measured likewise."""

FEATURES = 128


def render(run: Submitted, data_root: Path, *, job: str = "", namespace: str = "default") -> str:
    """Return the job that would train a run on a cluster, as `citeflow launch --dry-run` does.

    Args:
        run: the run.
        data_root: of its user.
        job: YAML text with the settings of the job.
        namespace: of the job.
    """
    from citeflow.kubernetes import job_spec
    from citeflow.kubernetes.job_spec import JobRequest
    from citeflow.kubernetes.launch import render_job
    from citeflow.kubernetes.launchers import LAUNCHERS
    from citeflow.training.launch import make_job

    spec = job_spec.from_yaml(job, workers=run.workers)
    if run.memory:
        spec = spec.sized(run.memory // run.workers)
    launcher = next(iter(LAUNCHERS))
    request = JobRequest(launcher=launcher, spec=spec, run_id=run.id, namespace=namespace)
    paths = RunPaths(data_root, run.name)
    settings = load_settings(run.task, text=run.settings)
    worker_job = make_job(data_root / "prepared" / run.name, paths, settings)
    rendered = render_job(request, paths, request.namespace, worker_job)
    return yaml.safe_dump(rendered, sort_keys=False)


def memory(
    settings: TaskConfig, workers: int, dataset: str, counts: tuple[int, int] | None
) -> int | None:
    """Estimate the peak memory of the training of citations, in bytes.

    Args:
        settings: all of them.
        workers: training processes.
        dataset: name of the dataset.
        counts: papers and citations of an upload.

    Returns:
        None where the size of the data, or the memory of the task, is not known beforehand.
    """
    if settings.task != CITATION or not isinstance(settings, Config):
        return None
    if dataset == "synthetic":
        papers = settings.synthetic.num_papers
        counts = (papers, round(papers * settings.synthetic.citations_per_paper))
    elif dataset == "ogbl-citation2":
        counts = OGBL_CITATION2
    if counts is None or not counts[0]:
        return None
    from citeflow.tasks.citation_memory import GraphShape, estimate

    papers, citations = counts
    degree = citations / papers
    shape = GraphShape(
        num_papers=papers,
        num_features=FEATURES,
        num_citations=citations,
        walk_of_source=WALK_OF_SOURCE * degree**2,
        walk_of_held_out=WALK_OF_HELD_OUT * degree**2,
        num_similar=round(SIMILAR * settings.data.num_similar * papers),
    )
    return estimate(shape, config=settings, workers=workers)


def seconds(settings: TaskConfig) -> float | None:
    """Return the time of the training, where it ends by time."""
    minutes = settings.to_dict()["train"]["minutes"]
    return 60.0 * float(str(minutes)) if minutes else None
