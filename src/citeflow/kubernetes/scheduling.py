"""Reasons why pods get no node or are refused: nodes and events as typed records."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from citeflow.kubernetes.job_spec import JobSpec, quantity

REFUSED = ("FailedCreate", "FailedCreatePod", "FailedToCreateHeadPod", "FailedToCreateWorkerPod")
"""Reasons of the events with which Jobs, the training operator and KubeRay report a refused pod."""

NOT_MOUNTED = ("FailedMount", "FailedAttachVolume")
"""Reasons of the events about a pod that waits for a volume."""

MOUNTED = ("Pulling", "Pulled")
"""Reasons of the events about a pod whose volumes are all mounted: the image comes after them."""

SCALES_UP = ("TriggeredScaleUp", "Nominated")
"""Reasons of the events with which autoscalers report that they add a node for a pod."""

QUOTA = "exceeded quota"
CORDONED = "node(s) were unschedulable"
PRIORITY_CLASS = "PriorityClass"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Report of a part of the cluster about an object."""

    reason: str
    message: str
    seen: datetime.datetime

    @classmethod
    def read(cls, event: Any) -> "Event":
        """Read a CoreV1Event of the kubernetes package."""
        seen = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
        return cls(reason=event.reason or "", message=event.message or "", seen=seen)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node, as far as it decides whether a pod fits."""

    labels: dict[str, str]
    allocatable: dict[str, str]

    @classmethod
    def read(cls, node: Any) -> "Node":
        """Read a V1Node of the kubernetes package."""
        return cls(
            labels=dict(node.metadata.labels or {}),
            allocatable=dict(node.status.allocatable or {}),
        )


def last_words(events: Iterable[Event], reasons: tuple[str, ...], since: datetime.datetime) -> str:
    """Return the message of the newest event of certain reasons, or an empty text."""
    fitting = [each for each in events if each.reason in reasons and each.seen >= since]
    last = max(fitting, key=lambda each: each.seen, default=None)
    return last.message.removeprefix("Error creating: ") if last else ""


def mount_failure(events: Iterable[Event], since: datetime.datetime) -> str:
    """Return why a pod's volume can not be mounted, or an empty text: a later try may succeed."""
    fitting = [
        each for each in events if each.reason in NOT_MOUNTED + MOUNTED and each.seen >= since
    ]
    last = max(fitting, key=lambda each: (each.seen, each.reason in MOUNTED), default=None)
    return last.message if last and last.reason in NOT_MOUNTED else ""


def is_refused_for_good(refusal: str) -> bool:
    """Tell whether the server will refuse the pod again; a quota or a webhook may change."""
    is_denied = "forbidden" in refusal or "denied the request" in refusal
    return is_denied and QUOTA not in refusal


def is_adding_a_node(events: Iterable[Event]) -> bool:
    """Tell whether an autoscaler has answered."""
    return any(event.reason in SCALES_UP for event in events)


def too_large(spec: JobSpec, nodes: Iterable[Node]) -> str:
    """Say what a pod asks for that not even an empty node has; empty if one has room.

    A cordoned node counts: it may take pods again.
    """
    wanted = spec.node_selector.items()
    chosen = [node for node in nodes if wanted <= node.labels.items()]
    asked = spec.requests
    if not chosen or any(_fits(asked, node) for node in chosen):
        return ""
    most = {
        name: max((node.allocatable.get(name, "0") for node in chosen), key=quantity)
        for name in asked
    }
    lacking = {name: text for name, text in asked.items() if quantity(text) > quantity(most[name])}
    parts = [f"{name} {text} of at most {most[name]}" for name, text in lacking.items()]
    return ", ".join(parts) or "no single node has all of it"


def _fits(asked: dict[str, str], node: Node) -> bool:
    return all(
        quantity(text) <= quantity(node.allocatable.get(name, "0")) for name, text in asked.items()
    )
