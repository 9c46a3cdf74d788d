"""Whether the steps of a pipeline may do what launching a job needs."""

from collections.abc import Iterator

from kubernetes import client as k8s

from citeflow.doctor import Finding, expect
from citeflow.doctor.asking import Cluster, Json
from citeflow.kubernetes.client import KINDS
from citeflow.kubernetes.job_spec import LAUNCHERS
from citeflow.kubernetes.rbac import LAUNCHER, Right

RULES = "the Role citeflow-launcher and its RoleBinding: kubectl apply -k manifests/overlays/..."


def check(cluster: Cluster) -> Iterator[Finding]:
    """One finding for each resource: the verbs that are not allowed to the service account, or to whoever asks."""
    who = cluster.service_account or "you"
    for right in _needed(cluster.launcher):
        what = f"rights of {who}: {right.name}"
        try:
            refused = [verb for verb in right.verbs if not _allows(cluster, right, verb)]
        except k8s.ApiException as error:
            if error.status != 403 or not cluster.service_account:
                raise
            value = f"you may not ask on its behalf for {', '.join(right.verbs)}"
            yield Finding(status="warning", what=what, value=value, hint=_command(cluster, right))
            continue
        value = f"not allowed: {', '.join(refused)}" if refused else ", ".join(right.verbs)
        yield expect(not refused, what, value, RULES)
    if not cluster.service_account:
        value = "steps run as `pipeline-runner`, or `default-editor` in a Profile's namespace"
        hint = "--service-account asks on its behalf"
        yield Finding(status="note", what="rights of the steps", value=value, hint=hint)


def _needed(launcher: str) -> list[Right]:
    """The rules without those for the other kinds of job."""
    others = {KINDS[kind][0] for name, kind in LAUNCHERS.items() if kind and name != launcher}
    return [right for right in LAUNCHER if right.group not in others]


def _allows(cluster: Cluster, right: Right, verb: str) -> bool:
    asked: Json = {"resourceAttributes": right.attributes(verb, cluster.namespace)}
    if not cluster.service_account:
        return cluster.review("SelfSubjectAccessReview", asked)
    groups = [
        "system:serviceaccounts",
        f"system:serviceaccounts:{cluster.namespace}",
        "system:authenticated",
    ]
    return cluster.review(
        "SubjectAccessReview", {**asked, "user": _user(cluster), "groups": groups}
    )


def _user(cluster: Cluster) -> str:
    return f"system:serviceaccount:{cluster.namespace}:{cluster.service_account}"


def _command(cluster: Cluster, right: Right) -> str:
    """What somebody with more rights asks."""
    resource, slash, part = right.name.partition("/")
    options = f"--subresource={part} " if slash else ""
    return f"`kubectl auth can-i {right.verbs[0]} {resource} {options}-n {cluster.namespace} --as={_user(cluster)}`"
