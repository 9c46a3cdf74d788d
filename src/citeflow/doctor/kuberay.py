"""Check KubeRay, whose older versions know no tokens."""

from collections.abc import Iterator

from citeflow.doctor import Finding, expect
from citeflow.doctor.kube_client import Cluster, controller_version
from citeflow.kubernetes.launchers.ray import RayJob

OLDEST = (1, 6, 0)
"""Oldest version that RayJobs are written for; 1.5.1 is the first with `authOptions`."""


def check(cluster: Cluster) -> Iterator[Finding]:
    """Check the version; silent where no RayJob is launched, or no Deployment has a version."""
    if not isinstance(cluster.launcher, RayJob):
        return
    if version := controller_version(cluster, "kuberay-operator"):
        shown = ".".join(map(str, version))
        yield expect(version >= OLDEST, "KubeRay", shown, cluster.launcher.install_hint)
