"""A trial on the cluster that the environment names, or a reason why there is none."""

import contextlib
import time

import pytest

from citeflow.errors import UnavailableError
from e2e import options

NOT_REQUESTED = "no cluster is named: `make e2e`, or CITEFLOW_E2E=1; docs/e2e.md"


class Progress:
    """Results of the parts of the trial, for those that need them."""

    def __init__(self, config):
        self.results = {}
        self._capture = config.pluginmanager.getplugin("capturemanager")

    def show(self, text):
        """Print a line, even if pytest captures what tests print."""
        with self._capture.global_and_fixture_disabled():
            print(f"\n=== {text}", flush=True)

    @contextlib.contextmanager
    def part(self, name, *needs, longest_s):
        """Time a part; skip it where something that it needs did not succeed.

        Args:
            name: the part.
            needs: the parts whose success it needs.
            longest_s: its longest time, the sum of the limits of its waits.
        """
        self.results[name] = "skipped"
        lacking = [each for each in needs if self.results.get(each) != "ok"]
        if lacking:
            states = [f"{each} ({self.results.get(each, 'not run')})" for each in lacking]
            pytest.skip(f"needs {', '.join(states)}")
        started = time.monotonic()
        self.show(f"{name}, {longest_s / 60:.0f} min at most")
        try:
            yield
            self.results[name] = "ok"
        except Exception:  # pytest's own of a skip is none
            self.results[name] = "failed"
            raise
        finally:
            self.show(f"{name}: {self.results[name]} in {time.monotonic() - started:.0f} s")


@pytest.fixture(scope="session")
def given():
    """Return the options; nothing is connected to unless a cluster was asked for."""
    try:
        found = options.read()
    except ValueError as error:
        pytest.exit(f"error: {error}", returncode=4)
    if found is None:
        pytest.skip(NOT_REQUESTED)
    return found


@pytest.fixture(scope="session")
def progress(given, pytestconfig):
    return Progress(pytestconfig)


@pytest.fixture(scope="session")
def client(given):
    """Connect to the cluster, if it answers."""
    from e2e import steps

    try:
        client = steps.reach(given)
    except UnavailableError as error:
        pytest.skip(f"no cluster answers: {error}")
    yield client
    client.api.close()


@pytest.fixture(scope="session")
def trial(given, client, progress):
    """A trial on that cluster; all that it creates is removed in the end."""
    from e2e import steps

    trial = steps.connect(given, client)
    progress.show(f"trial {trial.tag} in namespace {given.namespace}")
    yield trial
    if given.keep:
        names = ", ".join(trial.runs) or "no runs"
        progress.show(f"kept: {names}, label {steps.LABEL}={trial.tag}")
    else:
        failures = [f"but not {failure}" for failure in steps.clean(trial)]
        progress.show("; ".join(["cleaned up", *failures]))
