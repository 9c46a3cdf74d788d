"""PyTorchJob of the Kubeflow training operator (v1)."""

from citeflow.kubernetes.identity import JobIdentity
from citeflow.kubernetes.job_spec import JobSpec, seconds
from citeflow.kubernetes.job_status import JobStatus, KubeObject
from citeflow.kubernetes.launchers.base import Launcher, Prerequisite, priority_class


class PyTorchJob(Launcher):
    """Elastic workers without a master: each pod runs one torchrun."""

    name = "pytorchjob"
    kind = "PyTorchJob"
    group = "kubeflow.org"
    version = "v1"
    plural = "pytorchjobs"
    install_hint = "install the training operator v1.9, or use --launcher trainjob"
    pod_label = "training.kubeflow.org/job-name"
    container = "pytorch"

    def job_spec(self, spec: JobSpec, identity: JobIdentity) -> object:
        """Return the spec, in the models of Kubeflow's training SDK."""
        from kubeflow import training
        from kubernetes import client as k8s

        from citeflow.kubernetes import pod_template as pods

        host = f"{identity.name}-worker-0"
        command = pods.torchrun(spec, identity, host)
        pod = pods.pod_spec(spec)
        pod.containers = [
            k8s.V1Container(
                name=self.container,
                image=spec.image,
                image_pull_policy=spec.image_pull_policy,
                command=command[:1],
                args=command[1:],
                env=pods.environment(spec),
                ports=pods.ports(),
                resources=pods.resources(spec),
                volume_mounts=pods.volume_mounts(spec),
                security_context=pods.container_security_context(),
                termination_message_policy="FallbackToLogsOnError",
            )
        ]
        metadata = k8s.V1ObjectMeta(
            labels=pods.pod_labels(identity), annotations=dict(pods.NO_SIDECAR)
        )
        return training.KubeflowOrgV1PyTorchJobSpec(
            run_policy=training.KubeflowOrgV1RunPolicy(
                clean_pod_policy="Running",
                backoff_limit=spec.container_restarts,
                active_deadline_seconds=seconds(spec.deadline_hours),
                ttl_seconds_after_finished=seconds(spec.keep_hours),
            ),
            elastic_policy=training.KubeflowOrgV1ElasticPolicy(
                min_replicas=spec.workers,
                max_replicas=spec.workers,
                rdzv_backend="c10d",
                rdzv_host=host,
                rdzv_port=pods.RENDEZVOUS_PORT,
                rdzv_id=identity.name,
                max_restarts=spec.restarts,
            ),
            nproc_per_node=str(spec.processes),
            pytorch_replica_specs={
                "Worker": training.KubeflowOrgV1ReplicaSpec(
                    replicas=spec.workers,
                    restart_policy="OnFailure",
                    template=k8s.V1PodTemplateSpec(metadata=metadata, spec=pod),
                )
            },
        )

    def status(self, job: KubeObject) -> JobStatus:
        """Read a PyTorchJob."""
        policy = job["spec"].get("runPolicy") or {}
        deadline_s = policy.get("activeDeadlineSeconds")
        return JobStatus.read(job, deadline_s=deadline_s, success="Succeeded")

    def suspension(self, is_suspended: bool) -> KubeObject:
        """Return the change of a job that ends its pods until it is taken back."""
        return {"spec": {"runPolicy": {"suspend": is_suspended}}}

    def prerequisites(self, spec: JobSpec) -> tuple[Prerequisite, ...]:
        """List the PriorityClass."""
        return priority_class(spec)
