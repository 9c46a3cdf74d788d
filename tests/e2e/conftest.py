"""A trial on the cluster that the environment names, or a reason why there is none."""

import contextlib
import time

import pytest

from citeflow.errors import UnavailableError
from e2e import options

NOBODY_ASKED = "no cluster is named: `make e2e`, or CITEFLOW_E2E=1; docs/e2e.md"


class Progress:
    """Which parts of the trial went well, so that those that need them know."""

    def __init__(self, config) -> None:
        self.results: dict[str, str] = {}
        self._capture = config.pluginmanager.getplugin("capturemanager")

    def tell(self, what):
        """Print a line, whether pytest captures what tests print or not."""
        with self._capture.global_and_fixture_disabled():
            print(f"\n=== {what}", flush=True)

    @contextlib.contextmanager
    def part(self, name, *needs):
        """Tell how long it took; skip it where something that it needs did not go well."""
        lacking = [each for each in needs if self.results.get(each) != "ok"]
        if lacking:
            self.results[name] = "skipped"
            states = [f"{each} ({self.results.get(each, 'not run')})" for each in lacking]
            pytest.skip(f"needs {', '.join(states)}")
        began, self.results[name] = time.monotonic(), "failed"
        self.tell(name)
        try:
            yield
            self.results[name] = "ok"
        except pytest.skip.Exception:
            self.results[name] = "skipped"
            raise
        finally:
            self.tell(f"{name}: {self.results[name]} in {time.monotonic() - began:.0f} s")


@pytest.fixture(scope="session")
def given():
    """The options; whoever did not ask for a cluster is not asked about one."""
    try:
        found = options.read()
    except ValueError as error:
        pytest.exit(f"error: {error}", returncode=4)
    if found is None:
        pytest.skip(NOBODY_ASKED)
    return found


@pytest.fixture(scope="session")
def progress(given, pytestconfig):
    """Shared by all parts."""
    return Progress(pytestconfig)


@pytest.fixture(scope="session")
def api(given):
    """The cluster, if it answers."""
    from e2e import steps

    try:
        api = steps.reach(given)
    except UnavailableError as error:
        pytest.skip(f"no cluster answers: {error}")
    yield api
    api.client.close()


@pytest.fixture(scope="session")
def trial(given, api, progress):
    """A trial on that cluster and its Kubeflow Pipelines; all that is made there is removed in the
    end."""
    from e2e import steps

    found = steps.connect(given, api)
    progress.tell(f"trial {found.tag} in namespace {given.namespace}")
    yield found
    if given.keep:
        progress.tell(
            f"kept: {', '.join(found.runs) or 'no runs'}, label {steps.LABEL}={found.tag}"
        )
    else:
        progress.tell(
            "; ".join(["cleaned up", *(f"but not {what}" for what in steps.clean(found))])
        )
