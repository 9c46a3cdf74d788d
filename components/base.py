"""What the components and pipelines share: the image of a step, and what each step asks for."""

from typing import Any

from google.protobuf.struct_pb2 import Value
from kfp import dsl, kubernetes

from citeflow import __version__
from citeflow.kubernetes.job_spec import CLAIM, MOUNT, USER

IMAGE = f"citeflow-step:{__version__}-python3.11"
"""Image of a step; it holds citeflow and kfp, so that a step installs nothing when it starts."""

SMALL_IMAGE = f"citeflow-small:{__version__}-python3.11"
"""Image of steps that need neither torch nor a volume."""

RETRY_WITHIN = "30 days"
"""Argo gives up, and ends a retry that runs, so long after the *first* attempt began; it is no limit of the pauses."""


CHOICES = {
    "preset": ["default", "seed"],
    "predictor": ["settings", "dot", "mlp", "structural"],
    "launcher": ["local", "pytorchjob", "trainjob"],
}
"""Parameters that the run form offers as a drop-down."""


def request_resources(
    task: dsl.PipelineTask, *, cpu: tuple[str, str], memory: tuple[str, str], cached: bool
) -> None:
    """Give a step everything that `request_resources_without_volume` gives, and the volume."""
    request_resources_without_volume(
        task, task.name.capitalize(), cpu=cpu, memory=memory, cached=cached
    )
    kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=MOUNT)


def request_resources_without_volume(
    task: dsl.PipelineTask,
    title: str,
    *,
    cpu: tuple[str, str],
    memory: tuple[str, str],
    cached: bool,
) -> None:
    """Give a step its title, labels, user and retries, and what it asks for and may use of cpu and memory."""
    task.set_display_name(title).set_caching_options(cached)
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    task.set_retry(
        num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=RETRY_WITHIN
    )
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "citeflow")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.name)


def offer_choices(pipeline: Any) -> None:
    """Give the parameters of a pipeline that are in CHOICES a drop-down (KEP-11385).

    kfp 2.17 knows them, but its compiler refuses typing.Literal.
    """
    parameters = pipeline.pipeline_spec.root.input_definitions.parameters
    for name in CHOICES.keys() & parameters.keys():
        parameters[name].literals.extend(Value(string_value=choice) for choice in CHOICES[name])
