"""Training time over numbers of workers and of epochs."""

from kfp import dsl

from citeflow.kubernetes.job_spec import MOUNT
from components.base import offer_choices, request_resources
from components.chains import download_task, graph_memory, link_to_pages, preprocess_task, run_each
from components.scaling_report.component import scaling_report
from components.scaling_trials.component import scaling_trials


@dsl.pipeline(name="scaling", display_name="Scaling over workers and epochs")
def scaling(
    dataset: str = "synthetic",
    workers: list = [1, 2, 4, 6],
    epochs: list = [10, 30],
    preset: str = "default",
    settings: str = "",
    parallel: int = 1,
    launcher: str = "auto",
    job: str = "",
    run_name: str = "",
    out_dir: str = "",
    data_root: str = MOUNT,
) -> None:
    """Train with each number of workers for each number of epochs, and compare the times.

    Args:
        dataset: "synthetic" (generated), "ogbl-citation2", a citation folder on the volume, or a
            URL of one. A relative path lies below data_root.
        workers: Numbers of training processes; of pods, where jobs train.
        epochs: Numbers of passes over the training citations.
        preset: Settings to start from; "seed" is the published student model that citeflow comes
            from.
        settings: YAML text merged over the preset, for example "train: {lr: 0.001}";
            `citeflow settings` lists them.
        parallel: Number of trainings at a time, each with workers of its own; times of trainings
            that share cores do not compare.
        launcher: "pytorchjob", "trainjob", "ray" train in pods of their own, "local" in the step
            Run trials; "auto" takes the first that the cluster has.
        job: YAML text with the resources of such a job, for example "{cpu: 4, memory: 16Gi}". Not
            used by "local".
        run_name: Name of the experiment in TensorBoard and on the volume, of a-z, 0-9 and -; empty
            makes one from dataset and run. Its trainings are named like m-1-w-3-e-10: one master,
            3 more workers, 10 epochs.
        out_dir: Folder on the volume for table and page; empty takes runs/NAME/published. A
            relative path lies below data_root.
        data_root: A folder on the volume, which every step mounts at /mnt/citeflow.
    """
    raw = download_task(
        dataset=dataset,
        preset=preset,
        settings=settings,
        run_name=run_name,
        out_dir=out_dir,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    trials = scaling_trials(
        settings=raw.outputs["resolved"],
        share=raw.outputs["share"],
        workers=workers,
        epochs=epochs,
        parallel=parallel,
        data_root=data_root,
    )
    request_resources(trials, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    graph = preprocess_task(raw, data_root)
    reports = run_each(trials, graph, memory=graph_memory(raw), job=job, data_root=data_root)
    table = scaling_report(
        report_sha256s=reports,
        run=raw.outputs["run"],
        launcher=raw.outputs["launcher"],
        out_dir=out_dir,
        data_root=data_root,
    )
    request_resources(table, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    link_to_pages(table)


offer_choices(scaling)
