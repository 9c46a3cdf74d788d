"""A backend without processes: runs begin when they are started, and end when a test says so."""

from datetime import UTC, datetime

from citeflow import files
from citeflow.platform.backends.base import EnvironmentState, Resources, RunState, paths_of

GIB = 1 << 30


class FakeBackend:
    def __init__(self, root, *, cores=4):
        self.root = root
        self.whole = Resources(cores=cores, memory=64 * GIB, disk=GIB)
        self.started = []
        """Id and attempt of each start, in their order."""
        self.states = {}
        self.cancelled = []
        self.suspended = set()
        self.logs = {}
        self.problem = ""

    def sizes(self):
        return {
            "S": Resources(cores=1, memory=8 * GIB, disk=GIB),
            "M": Resources(cores=2, memory=16 * GIB, disk=GIB),
            "L": self.whole,
        }

    def capacity(self):
        return self.whole

    def code_problem(self):
        return self.problem

    def ensure_environment(self, user, size):
        self.folder(user).mkdir(parents=True, exist_ok=True)

    def environment(self, user):
        return EnvironmentState(state="ready", links={"TensorBoard": "http://127.0.0.1:6006"})

    def remove_environment(self, user):
        files.delete_directory(self.folder(user))

    def suspend(self, user):
        self.suspended.add(user)

    def wake(self, user):
        self.suspended.discard(user)

    def folder(self, user):
        return self.root / "users" / user

    def start(self, run):
        self.started.append((run.id, run.attempt))
        self.states[run.id, run.attempt] = RunState(phase="running", started=datetime.now(UTC))

    def state(self, run):
        return self.states.get((run.id, run.attempt), RunState(phase="absent"))

    def end(self, run_id, phase="succeeded", *, attempt=1, detail=""):
        now = datetime.now(UTC)
        state = RunState(phase=phase, detail=detail, started=now, ended=now)
        self.states[run_id, attempt] = state

    def cancel(self, run):
        self.cancelled.append(run.id)
        self.end(run.id, "stopped", attempt=run.attempt)

    def delete(self, run):
        files.delete_directory(paths_of(self, run).folder)

    def lines(self, run, after):
        return self.logs.get(run.id, [])[after:]

    def job(self, run):
        return f"name: {run.name}\n"
