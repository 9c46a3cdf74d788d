"""Note what a local run ignores of a pipeline; kfp.local says so of a part of it only."""

from collections.abc import Iterator

from citeflow.doctor import Finding
from citeflow.kubernetes.job_spec import CLAIM
from citeflow.kubernetes.launchers import LAUNCHERS, LAUNCHERS_HERE

JOBS = " and ".join(f"`{name}`" for name, each in LAUNCHERS.items() if not each.works_here)
HERE = " and ".join(f"`{name}`" for name in LAUNCHERS_HERE)

IGNORED = {
    "claims": f"data, models and logs go to --data-root, not to the claim {CLAIM}",
    "service account": "steps run as you, with your rights and your environment variables",
    "images": "steps run with this Python and its packages",
    "node placement": "node selectors, tolerations and queues, of steps and of jobs",
    "resources": "requests and limits: a step may use all cores and all memory",
    "retries": "those of lost pods; a step that was killed starts itself again, as on a cluster",
    "caching": "what is on the disk already is taken by its digest, with or without caching",
    "security context": "no other user, no read-only root, no dropped capabilities",
    "timeouts": "a step may run for ever; Ctrl-C ends it",
    "launcher": f"{JOBS} need a cluster; {HERE} train in processes of this machine",
}
"""Ignored settings, and what holds instead."""


def check() -> Iterator[Finding]:
    """Note each ignored setting."""
    for what, instead in IGNORED.items():
        yield Finding(status="note", what=f"a local run ignores {what}", value=instead)
