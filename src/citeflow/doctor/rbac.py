"""Check that the steps of a pipeline may do what launching a job needs."""

from collections.abc import Iterator

from kubernetes import client as k8s

from citeflow.doctor import Finding, expect
from citeflow.doctor.kube_client import Cluster
from citeflow.kubernetes.rbac import PolicyRule, launcher_rules

HINT = "the Role citeflow-launcher and its RoleBinding: kubectl apply -k manifests/overlays/..."


def check(cluster: Cluster) -> Iterator[Finding]:
    """Check the verbs of each resource, for the service account or for the user."""
    who = cluster.service_account or "you"
    for rule in launcher_rules([cluster.launcher]):
        what = f"rights of {who}: {rule.name}"
        try:
            refused = [verb for verb in rule.verbs if not _is_allowed(cluster, rule, verb)]
        except k8s.ApiException as error:
            if error.status != 403 or not cluster.service_account:
                raise
            value = f"you may not ask on its behalf for {', '.join(rule.verbs)}"
            yield Finding(status="warning", what=what, value=value, hint=_command(cluster, rule))
            continue
        value = f"not allowed: {', '.join(refused)}" if refused else ", ".join(rule.verbs)
        yield expect(not refused, what, value, HINT)
    if not cluster.service_account:
        value = "steps run as `pipeline-runner`, or `default-editor` in a Profile's namespace"
        hint = "--service-account asks on its behalf"
        yield Finding(status="note", what="rights of the steps", value=value, hint=hint)


def _is_allowed(cluster: Cluster, rule: PolicyRule, verb: str) -> bool:
    attributes = rule.attributes(cluster.namespace, verb)
    authorization = k8s.AuthorizationV1Api(cluster.client.api)
    if not cluster.service_account:
        spec = k8s.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        own_review = k8s.V1SelfSubjectAccessReview(spec=spec)
        answer = cluster.read(authorization.create_self_subject_access_review, own_review)
        return bool(answer.status.allowed)
    groups = [
        "system:serviceaccounts",
        f"system:serviceaccounts:{cluster.namespace}",
        "system:authenticated",
    ]
    spec = k8s.V1SubjectAccessReviewSpec(
        resource_attributes=attributes, user=_user(cluster), groups=groups
    )
    review = k8s.V1SubjectAccessReview(spec=spec)
    answer = cluster.read(authorization.create_subject_access_review, review)
    return bool(answer.status.allowed)


def _user(cluster: Cluster) -> str:
    return f"system:serviceaccount:{cluster.namespace}:{cluster.service_account}"


def _command(cluster: Cluster, rule: PolicyRule) -> str:
    """Return the command for somebody with more rights."""
    resource, slash, subresource = rule.name.partition("/")
    option = f"--subresource={subresource} " if slash else ""
    who = f"-n {cluster.namespace} --as={_user(cluster)}"
    return f"`kubectl auth can-i {rule.verbs[0]} {resource} {option}{who}`"
