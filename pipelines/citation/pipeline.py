"""From a citation graph to an evaluated and published link predictor."""

from kfp import dsl

from citeflow.kubeflow.params import FROM_SETTINGS
from citeflow.kubernetes.job_spec import MOUNT
from components.base import offer_choices
from components.chains import download_task, train_and_evaluate


@dsl.pipeline(name="citation", display_name="Missing citations")
def citation(
    dataset: str = "synthetic",
    preset: str = "default",
    predictor: str = FROM_SETTINGS,
    epochs: float = 0.0,
    minutes: float = 0.0,
    settings: str = "",
    workers: int = 2,
    launcher: str = "auto",
    job: str = "",
    run_name: str = "",
    out_dir: str = "",
    deploy: str = "",
    data_root: str = MOUNT,
) -> None:
    """Train and score a GraphSAGE link predictor that finds citations missing from a network.

    Args:
        dataset: "synthetic" (generated), "ogbl-citation2", a citation folder on the volume, for
            example /mnt/citeflow/my-papers, or a URL of one. A relative path lies below data_root.
        preset: Settings to start from; "seed" is the published student model that citeflow comes
            from.
        predictor: Scores a pair of papers; "from-settings" leaves the choice to preset and
            settings.
        epochs: Passes over the training citations; 0 leaves it to the settings. Not together with
            minutes.
        minutes: Time to train; 0 leaves it to the settings. Not together with epochs.
        settings: YAML text merged over the preset, for example "train: {lr: 0.001}";
            `citeflow settings` lists them.
        workers: Number of training processes; of pods, where a job trains.
        launcher: "pytorchjob", "trainjob", "ray" train in pods of their own, "local" in the step
            Train; "auto" takes the first that the cluster has.
        job: YAML text with the resources of such a job, for example "{cpu: 4, memory: 16Gi}";
            `citeflow launch --help` lists all. Not used by "local".
        run_name: Name in TensorBoard and on the volume, of a-z, 0-9 and -; empty takes the name
            of this run, with the first digits of its id.
        out_dir: Folder on the volume for report and model; empty takes runs/NAME/published. A
            relative path lies below data_root.
        deploy: Name of the service whose servers take the model up (docs/serving-cluster.md);
            empty deploys nothing.
        data_root: A folder on the volume, which every step mounts at /mnt/citeflow.
    """
    raw = download_task(
        dataset=dataset,
        preset=preset,
        settings=settings,
        predictor=predictor,
        epochs=epochs,
        minutes=minutes,
        workers=workers,
        run_name=run_name,
        out_dir=out_dir,
        launcher=launcher,
        job=job,
        data_root=data_root,
        deploy=deploy,
    )
    train_and_evaluate(
        raw,
        workers=workers,
        job=job,
        data_root=data_root,
        out_dir=out_dir,
        deploy=deploy,
    )


offer_choices(citation)
