"""Image, resources and form of every task in the pipelines."""

from typing import Any, get_args

from google.protobuf.struct_pb2 import Value
from kfp import dsl, kubernetes

from citeflow import __version__
from citeflow.attempts import BACKOFF_FACTOR, FIRST_PAUSE_S, RETRIES
from citeflow.config import PRESETS, ModelConfig
from citeflow.kubeflow.params import FROM_SETTINGS
from citeflow.kubernetes.job_spec import CLAIM, MOUNT, USER
from citeflow.kubernetes.launchers import LAUNCHER_NAMES

IMAGE = f"citeflow-step:{__version__}-python3.11"
"""Image of a task; it holds citeflow and kfp, so that nothing is installed when a task starts."""

RETRY_WITHIN = "30 days"
"""Argo ends a retry that runs so long after the *first* attempt; it does not limit the pauses."""

CHOICES: dict[str, list[str]] = {
    "preset": list(PRESETS),
    "predictor": [FROM_SETTINGS, *get_args(ModelConfig.model_fields["predictor"].annotation)],
    "launcher": list(LAUNCHER_NAMES),
}
"""Parameters that the run form offers as a drop-down."""


Memory = tuple[Any, Any]
"""Request and limit: quantities, or outputs of a task that makes them."""


def request_resources(
    task: dsl.PipelineTask, *, cpu: tuple[str, str], memory: Memory, cached: bool
) -> None:
    """Set title, labels, user, retries and volume of a task.

    Args:
        task: the task.
        cpu: request and limit.
        memory: request and limit.
        cached: whether KFP may take its outputs from an earlier run.
    """
    task.set_display_name(task.name.replace("-", " ").capitalize()).set_caching_options(cached)
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    # For lost pods, which a stock Argo retries alone; after a crash, a step starts itself again.
    task.set_retry(
        num_retries=RETRIES,
        backoff_duration=f"{FIRST_PAUSE_S}s",
        backoff_factor=BACKOFF_FACTOR,
        backoff_max_duration=RETRY_WITHIN,
    )
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "citeflow")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.name)
    kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=MOUNT)


def offer_choices(pipeline: Any) -> None:
    """Give the parameters of a pipeline that are in CHOICES a drop-down (KEP-11385).

    kfp 2.17 knows them, but its compiler refuses typing.Literal.
    """
    parameters = pipeline.pipeline_spec.root.input_definitions.parameters
    for name in CHOICES.keys() & parameters.keys():
        parameters[name].literals.extend(Value(string_value=choice) for choice in CHOICES[name])
