"""Comparison of several models over several seeds."""

from kfp import dsl

from citeflow.config import CITATION
from citeflow.kubernetes.job_spec import MOUNT
from citeflow.tasks import get_task
from components.base import offer_choices, request_resources
from components.chains import download_task, graph_memory, link_to_pages, preprocess_task, run_each
from components.comparison_report.component import comparison_report
from components.comparison_trials.component import comparison_trials

MODELS = get_task(CITATION).models
"""GraphSAGE with structural features, GraphSAGE alone, and a perceptron on the features of papers.

One line, as kfp writes defaults into a comment.
"""


@dsl.pipeline(name="compare", display_name="Comparison of models")
def compare(
    dataset: str = "synthetic",
    models: str = MODELS,
    seeds: list = [0, 1, 2],
    preset: str = "default",
    epochs: float = 0.0,
    minutes: float = 0.0,
    settings: str = "",
    workers: int = 2,
    parallel: int = 1,
    launcher: str = "auto",
    job: str = "",
    run_name: str = "",
    out_dir: str = "",
    data_root: str = MOUNT,
) -> None:
    """Train each model with each seed, and rank the models with a test of their differences.

    Args:
        dataset: "synthetic" (generated), "ogbl-citation2", a citation folder on the volume, or a
            URL of one. A relative path lies below data_root.
        models: YAML text with the settings of each model by its name, over those below; for
            settings with "task: images" such as "{plain: {model: {architecture: plain}}, ...}".
        seeds: Seeds of weights, batches and negatives; three or more tell a difference from noise.
        preset: Settings to start from; "seed" is the published student model that citeflow comes
            from.
        epochs: Passes over the training citations; 0 leaves it to the settings. Not together with
            minutes.
        minutes: Time to train; 0 leaves it to the settings. Not together with epochs.
        settings: YAML text merged over the preset, for example "train: {lr: 0.001}";
            `citeflow settings` lists them.
        workers: Number of training processes; of pods, where jobs train.
        parallel: Number of trainings at a time, each with workers of its own; times of trainings
            that share cores do not compare.
        launcher: "pytorchjob", "trainjob", "ray" train in pods of their own, "local" in the step
            Run trials; "auto" takes the first that the cluster has.
        job: YAML text with the resources of such a job, for example "{cpu: 4, memory: 16Gi}". Not
            used by "local".
        run_name: Name of the comparison in TensorBoard and on the volume, of a-z, 0-9 and -; empty
            makes one from dataset and run. Its trainings are named like dot-seed-0.
        out_dir: Folder on the volume for table and page; empty takes runs/NAME/published. A
            relative path lies below data_root.
        data_root: A folder on the volume, which every step mounts at /mnt/citeflow.
    """
    raw = download_task(
        dataset=dataset,
        preset=preset,
        settings=settings,
        epochs=epochs,
        minutes=minutes,
        workers=workers,
        run_name=run_name,
        out_dir=out_dir,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    trials = comparison_trials(
        settings=raw.outputs["resolved"],
        share=raw.outputs["share"],
        models=models,
        seeds=seeds,
        workers=workers,
        parallel=parallel,
        data_root=data_root,
    )
    request_resources(trials, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    graph = preprocess_task(raw, data_root)
    reports = run_each(trials, graph, memory=graph_memory(raw), job=job, data_root=data_root)
    table = comparison_report(
        report_sha256s=reports,
        run=raw.outputs["run"],
        out_dir=out_dir,
        data_root=data_root,
    )
    request_resources(table, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    link_to_pages(table)


offer_choices(compare)
