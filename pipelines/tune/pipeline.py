"""Search for better settings."""

from kfp import dsl, kubernetes

from citeflow.kubernetes.job_spec import MOUNT
from components.base import offer_choices, request_resources
from components.chains import (
    download_task,
    evaluate_and_publish,
    graph_memory,
    link_to_pages,
    preprocess_task,
    request_training_resources,
)
from components.create_study.component import create_study
from components.train_trials.component import train_trials
from components.tuning_report.component import tuning_report

SECRET = "citeflow-study"
"""Secret with the URL of the study's database under the key `url`: the URL holds a password."""


def _connect_to_study(*tasks: dsl.PipelineTask) -> None:
    """Give tasks the URL of the study's database, where the namespace has one."""
    for task in tasks:
        kubernetes.use_secret_as_env(
            task,
            secret_name=SECRET,
            secret_key_to_env={"url": "CITEFLOW_STUDY_STORAGE"},
            optional=True,
        )


@dsl.pipeline(name="tune", display_name="Search for better settings")
def tune(
    dataset: str = "synthetic",
    trials: int = 12,
    parallel: int = 1,
    space: str = "",
    preset: str = "default",
    settings: str = "",
    workers: int = 1,
    launcher: str = "auto",
    job: str = "",
    run_name: str = "",
    data_root: str = MOUNT,
) -> None:
    """Train with many settings, each sampled from what the earlier ones reached; score the best.

    Args:
        dataset: "synthetic" (generated), "ogbl-citation2", a citation folder on the volume, or a
            URL of one. A relative path lies below data_root.
        trials: Number of trainings; the first has the settings that the search starts from. Those
            that are clearly worse than others are pruned.
        parallel: Number of trainings at a time. More than one needs a database on a cluster, whose
            URL the Secret citeflow-study holds.
        space: YAML text with the settings to search, for example "{train.lr: {low: 0.001, high:
            0.1, log: true}, model.hidden_channels: [64, 128]}"; empty searches learning rate,
            negatives, dropout, hidden channels and layers.
        preset: Settings to start from; "seed" is the published student model that citeflow comes
            from.
        settings: YAML text merged over the preset, for example "evaluation: {protocol: all}", which
            compares trials by validation MRR among all papers; `citeflow settings` lists them.
        workers: Number of training processes of a trial; of pods, where jobs train.
        launcher: "pytorchjob", "trainjob", "ray" train in pods of their own, "local" in the step
            Train trials; "auto" takes the first that the cluster has.
        job: YAML text with the resources of such a job, for example "{cpu: 4, memory: 16Gi}". Not
            used by "local".
        run_name: Name of the search in TensorBoard and on the volume, of a-z, 0-9 and -; empty
            makes one from dataset and run. A search of this name that was stopped is resumed.
        data_root: A folder on the volume, which every step mounts at /mnt/citeflow.
    """
    raw = download_task(
        dataset=dataset,
        preset=preset,
        settings=settings,
        workers=workers,
        run_name=run_name,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    graph = preprocess_task(raw, data_root).outputs["prepared_graph"]
    shares = create_study(
        graph=graph,
        settings=raw.outputs["resolved"],
        space=space,
        trials=trials,
        parallel=parallel,
        workers=workers,
        share=raw.outputs["share"],
        data_root=data_root,
    )
    request_resources(shares, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    with dsl.ParallelFor(shares.output, name="shares") as share:
        trained = train_trials(
            graph=graph,
            trials=share.trials,
            run_name=share.run,
            workers=workers,
            run_id=share.run_id,
            launcher=share.launcher,
            job=job,
            data_root=data_root,
        )
        request_training_resources(trained, graph_memory(raw))
    best = tuning_report(
        shares=dsl.Collected(trained.output),
        graph=graph,
        run_name=raw.outputs["run"],
        data_root=data_root,
    )
    request_resources(best, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    link_to_pages(best)
    _connect_to_study(shares, trained, best)
    evaluate_and_publish(
        best.outputs["best_model"],
        best.outputs["model_sha256"],
        graph=graph,
        memory=graph_memory(raw),
        data_root=data_root,
        out_dir=best.outputs["out_dir"],
    )


offer_choices(tune)
