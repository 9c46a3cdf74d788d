"""From a citation graph to a scored link predictor."""

from google.protobuf.struct_pb2 import Value
from kfp import dsl, kubernetes

from citeflow.cluster.spec import CLAIM, IMAGE, IMAGE_VARIABLE, MOUNT, USER
from components.download.component import download
from components.evaluate.component import evaluate
from components.preprocess.component import preprocess
from components.publish.component import publish
from components.train.component import train

RETRY_WITHIN = "30 days"
"""Argo gives up, and ends a retry that runs, so long after the *first* attempt began; it is no limit of the pauses."""

CHOICES = {
    "preset": ["default", "seed"],
    "predictor": ["settings", "dot", "mlp", "structural"],
    "launcher": ["local", "pytorchjob", "trainjob"],
}
"""Parameters that the run form offers as a drop-down."""


def _place(task: dsl.PipelineTask, *, cpu: tuple[str, str], memory: tuple[str, str], cached: bool) -> None:
    """Give a step its title, label, volume and retries, and what it asks for and may use of cpu and memory."""
    verb = task.name
    task.set_display_name(verb.capitalize()).set_caching_options(cached)
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=RETRY_WITHIN)
    kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=MOUNT)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "citeflow")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", verb)


def _learn(raw: dsl.PipelineTask, workers: int, launcher: str, job: str, out_dir: str, data_root: str) -> None:
    """Everything behind the download."""
    graph = preprocess(
        raw=raw.outputs["raw"],
        raw_sha256=raw.outputs["sha256"],
        settings=raw.outputs["data_resolved"],
        data_root=data_root,
    )
    _place(graph, cpu=("500m", "4"), memory=("2Gi", "32Gi"), cached=True)
    model = train(
        graph=graph.outputs["graph"],
        settings=raw.outputs["resolved"],
        workers=workers,
        run_name=raw.outputs["run"],
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    _place(model, cpu=("500m", "16"), memory=("1Gi", "64Gi"), cached=False)
    model.set_env_variable(IMAGE_VARIABLE, IMAGE)
    kubernetes.use_field_path_as_env(model, env_name="CITEFLOW_POD_NAME", field_path="metadata.name")
    kubernetes.use_field_path_as_env(model, env_name="CITEFLOW_POD_UID", field_path="metadata.uid")
    report = evaluate(
        model=model.outputs["model"],
        model_sha256=model.outputs["Output"],
        graph=graph.outputs["graph"],
        data_root=data_root,
    )
    _place(report, cpu=("500m", "16"), memory=("2Gi", "64Gi"), cached=True)
    published = publish(
        report=report.outputs["report"],
        report_sha256=report.outputs["Output"],
        model=model.outputs["model"],
        out_dir=out_dir,
        data_root=data_root,
    )
    _place(published, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)


@dsl.pipeline(name="citation", display_name="Missing citations")
def citation(
    dataset: str = "synthetic",
    preset: str = "default",
    predictor: str = "settings",
    epochs: float = 0.0,
    minutes: float = 0.0,
    settings: str = "",
    workers: int = 2,
    launcher: str = "local",
    job: str = "",
    run_name: str = "",
    out_dir: str = "",
    data_root: str = MOUNT,
) -> None:
    """Trains and scores a GraphSAGE link predictor that finds the citations which a citation network lacks.

    Args:
        dataset: "synthetic" (made on the spot), "ogbl-citation2", a citation folder on the volume, for example
            /mnt/citeflow/my-papers, or a URL of one. A relative path lies below data_root.
        preset: Settings to start from; "seed" is the published student model that citeflow grew out of.
        predictor: What scores a pair of papers; "settings" leaves it to them, all else overrides them.
        epochs: Passes over the training citations; 0 leaves it to the settings, all else overrides them. Not together
            with minutes.
        minutes: Time to train; 0 leaves it to the settings, all else overrides them. Not together with epochs.
        settings: YAML text merged over the preset, for example "train: {lr: 0.001}"; `citeflow settings` lists them.
        workers: Number of training processes; of pods, where a job trains.
        launcher: "local" trains in the step Train; "pytorchjob" and "trainjob" let pods of their own do it.
        job: YAML text with what such a job gets, for example "{cpu: 4, memory: 16Gi}"; `citeflow launch --help` lists
            all. Not used by "local".
        run_name: Name in TensorBoard and on the volume, of a-z, 0-9 and -; empty makes one from dataset and job.
        out_dir: Folder on the volume that gets report and model; empty takes runs/NAME/published. A relative path lies
            below data_root.
        data_root: A folder on the volume, which every step mounts at /mnt/citeflow.
    """
    raw = download(
        dataset=dataset,
        preset=preset,
        settings=settings,
        predictor=predictor,
        epochs=epochs,
        minutes=minutes,
        workers=workers,
        run_name=run_name,
        out_dir=out_dir,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        launcher=launcher,
        job=job,
        data_root=data_root,
    )
    _place(raw, cpu=("500m", "2"), memory=("1Gi", "8Gi"), cached=False)
    _learn(raw, workers, launcher, job, out_dir, data_root)


# The run form has drop-downs (KEP-11385), but the compiler of kfp 2.17 refuses typing.Literal.
for _name, _choices in CHOICES.items():
    _parameter = citation.pipeline_spec.root.input_definitions.parameters[_name]
    _parameter.literals.extend(Value(string_value=choice) for choice in _choices)
