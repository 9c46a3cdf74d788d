"""Bring a dataset onto the shared volume."""

from typing import NamedTuple

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
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
    data_root: str,
    raw_dataset: dsl.Output[dsl.Dataset],
    deploy: str = "",
    task: str = "",
) -> NamedTuple(
    "Settled",
    [
        ("sha256", str),
        ("run", str),
        ("resolved", str),
        ("data_resolved", str),
        ("memory", str),
        ("memory_limit", str),
        ("launcher", str),
        ("share", dict),
    ],
):
    """Bring a dataset onto the shared volume, once the settings of the whole run have been checked.

    Args:
        dataset: A name (synthetic, ogbl-citation2), a folder on the volume, or the URL of an
            archive of one.
        preset: Settings to start from.
        settings: YAML text, merged over the preset.
        predictor: What scores a pair, or "from-settings" to leave that to the settings.
        epochs: Passes over the training citations, or 0 to leave that to the settings.
        minutes: Time to train, or 0 to leave that to the settings.
        workers: Number of training processes, checked before anything is done.
        run_name: Name of the run; empty makes one from the title and the id.
        out_dir: Folder for report and model, checked before anything is done; empty takes the
            folder of the run.
        run_id: Id of the pipeline run; what tells this run from others of the same dataset.
        title: Name of the pipeline run, on its page.
        launcher: What will start the training, checked before anything is done.
        job: YAML text with the resources of the job, if there is one, checked before anything is
            done.
        data_root: A folder on the volume; a relative dataset or out_dir lies below it.
        raw_dataset: Manifest of the RawDataset.
        deploy: Name of the service that the model is deployed to, checked before anything is done.
        task: "citation" or "images"; empty leaves it to the settings.

    Returns:
        sha256: Digest of the RawDataset.
        run: Name of the run.
        resolved: All settings of the run, as YAML text.
        data_resolved: Those of them that the PreparedGraph depends on.
        memory: Memory that the steps which hold the graph request.
        memory_limit: Limit of their memory.
        launcher: What starts the training, with "auto" settled.
        share: What every step of an experiment's loop gets besides its trials.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow import stages

    return stages.download(
        dataset,
        preset,
        settings,
        predictor,
        epochs,
        minutes,
        workers,
        run_name,
        out_dir,
        run_id,
        title,
        launcher,
        job,
        data_root=data_root,
        raw=raw_dataset,
        deploy=deploy,
        task=task,
    )
