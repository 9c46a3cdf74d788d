"""The launcher that `auto` stands for, where a step runs."""

import os

from citeflow.errors import ConfigError
from citeflow.kubernetes.launchers import AUTO, LAUNCHERS, LAUNCHERS_HERE, LOCAL, Launcher
from citeflow.kubernetes.rbac import launcher_rules
from citeflow.utils.logging import log


def choose_launcher(name: str) -> str:
    """Return a launcher by name, with `auto` replaced by what is there.

    A step on a cluster takes the first kind of LAUNCHERS that the API serves and that the step has
    the rights for. Without one, and anywhere else, it trains in processes of its own.

    Raises:
        UnavailableError: the API does not answer.
    """
    if name != AUTO:
        return name
    if not is_on_cluster():
        return LOCAL
    reasons = []
    for launcher in LAUNCHERS.values():
        lack = _lack(launcher)
        if not lack:
            log("launch", "auto takes", launcher=launcher.name)
            return launcher.name
        reasons.append(lack)
    log("launch", "auto takes", launcher=LOCAL, why="; ".join(reasons))
    return LOCAL


def is_on_cluster() -> bool:
    """Tell whether this is a pipeline step in a pod, which Kubeflow Pipelines names."""
    return bool(os.environ.get("KFP_POD_NAME"))


def trains_here(name: str) -> bool:
    """Tell whether a launcher, with `auto` settled, trains on this machine and needs no job."""
    return name == LOCAL or (name in LAUNCHERS_HERE and not is_on_cluster())


def _lack(launcher: Launcher) -> str:
    """Return what the cluster lacks for jobs of a kind; empty if nothing."""
    from citeflow.kubernetes.client import connect

    try:
        client = connect()
        if not client.serves(launcher):
            return f"no {launcher.plural}.{launcher.group}"
        for rule in launcher_rules([launcher]):
            refused = [verb for verb in rule.verbs if not client.is_allowed(rule, verb)]
            if refused:
                return f"no right to {', '.join(refused)} {rule.name}"
    except ConfigError as error:
        return f"{error.what}: {error.value}"
    return ""
