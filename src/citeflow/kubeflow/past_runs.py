"""The runs on Kubeflow Pipelines, as `citeflow runs` lists, shows, archives and deletes them."""

from dataclasses import dataclass
from typing import Any

from citeflow.errors import ConfigError, NotFoundError
from citeflow.kubeflow.client import ARCHIVED, KfpClient
from citeflow.kubeflow.outcome import TERMINAL


@dataclass(frozen=True, slots=True)
class ServerRuns:
    """The runs of a server. A run is named by its id, or by its name: the newest of that name."""

    client: KfpClient

    def list(self, *, experiment: str, limit: int, archived: bool) -> list[dict[str, object]]:
        """Describe runs, the newest first.

        Args:
            experiment: only its runs; empty for all.
            limit: at most.
            archived: those that are archived, in place of those that are not.

        Raises:
            NotFoundError: no such experiment.
        """
        experiment_id = ""
        if experiment:
            found = self.client.find_experiment(experiment)
            if found is None:
                raise NotFoundError("no such experiment", experiment)
            experiment_id = found.experiment_id
        runs = self.client.list_runs(experiment_id=experiment_id, archived=archived, limit=limit)
        return [describe(self.client, run) for run in runs]

    def show(self, name: str) -> dict[str, object]:
        """Describe a run in full: parameters, and what the server says of stages that failed."""
        run = self.client.get_run(name)
        failed = self.client.failed_stages(run.run_id) if run.state in TERMINAL else {}
        return {
            **describe(self.client, run),
            "archived": run.storage_state == ARCHIVED,
            "description": run.description,
            "parameters": _parameters(run),
            "failed": dict(failed),
        }

    def archive(self, name: str, *, undo: bool) -> dict[str, object]:
        """Move a run to the archive, or back."""
        run = self.client.get_run(name)
        self.client.archive_run(run.run_id, undo=undo)
        return {"run_id": run.run_id, "name": run.display_name, "archived": not undo}

    def delete(self, name: str) -> dict[str, object]:
        """Delete an archived run from the server; its files on the volume stay.

        Raises:
            ConfigError: it is not archived.
        """
        run = self.client.get_run(name)
        if run.storage_state != ARCHIVED:
            raise ConfigError("the run is not archived", name, hint="`citeflow runs archive` first")
        self.client.delete_run(run.run_id)
        return {"run_id": run.run_id, "name": run.display_name, "deleted": True}


def describe(client: KfpClient, run: Any) -> dict[str, object]:
    """Describe a run of a server in a line: its names, state, times, launcher and page."""
    # The server gives a run that has not ended a time in 1970.
    finished_at = run.finished_at if run.state in TERMINAL else None
    return {
        "run_id": run.run_id,
        "name": run.display_name,
        "state": run.state,
        "created": run.created_at.isoformat() if run.created_at else None,
        "finished": finished_at.isoformat() if finished_at else None,
        "launcher": _parameters(run).get("launcher"),
        "url": client.run_url(run.run_id),
    }


def _parameters(run: Any) -> dict[str, object]:
    return dict((run.runtime_config.parameters if run.runtime_config else None) or {})
