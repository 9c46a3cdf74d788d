"""Notice that a pod is killed for its memory again and again, without progress between."""

import datetime
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from citeflow.kubernetes.job_status import OOM_KILLED, PodStatus
from citeflow.kubernetes.launchers import Launcher

UNKNOWN = -1
"""Checkpoint of the kills that a job had before it was taken over: others may have followed."""

MAX_KILLS = 2
"""Kills of one replica that began at the same checkpoint: the next would come to the same end."""


@dataclass(kw_only=True, slots=True)
class OomKills:
    """The kills of each replica of a job, with the newest checkpoint at that time."""

    launcher: Launcher
    checkpoints: Path
    _steps: dict[str, dict[datetime.datetime, int]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _has_looked: bool = False

    def update(self, pods: Iterable[PodStatus]) -> None:
        """Note the kills that are new."""
        for pod in pods:
            steps = self._steps[self.launcher.replica(pod)]
            for end in (end for each in pod.containers for end in each.failures):
                if end.reason == OOM_KILLED and end.finished and end.finished not in steps:
                    steps[end.finished] = self._newest_step() if self._has_looked else UNKNOWN
        self._has_looked = True

    def killed_in_vain(self) -> str:
        """Name a replica that was killed repeatedly since the newest checkpoint, if there is one.

        A shared file system may show the newest checkpoint late.
        """
        if not self._steps:
            return ""
        newest = self._newest_step()
        for replica, steps in self._steps.items():
            if list(steps.values()).count(newest) >= MAX_KILLS:
                return replica
        return ""

    def _newest_step(self) -> int:
        names = [path.name for path in self.checkpoints.glob("step-" + 8 * "[0-9]")]
        return max((int(name.removeprefix("step-")) for name in names), default=0)
