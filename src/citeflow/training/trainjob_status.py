"""Progress in the status of a TrainJob: `status.trainerStatus`, which kubectl and dashboards show.

Where Kubeflow Trainer runs with its gate TrainJobStatus (alpha, v2.2.0 and newer), it sets three
variables in each container of the job: the URL to post to, and the paths of its certificate and of
a token that is renewed once in an hour. The request is `UpdateTrainJobStatusRequest` of
kubeflow/trainer, `pkg/apis/trainer/v1alpha1/trainjob_types.go`; the handler is
`pkg/statusserver/server.go` (read at 17fbd6d), the design KEP-2779,
`docs/proposals/2779-trainjob-progress`. Whole numbers are int32, at most 256 metrics have names and
values of 1 to 64 characters, and each post replaces all that the one before said.

Nothing here may end or delay a training: a post that fails is logged once, and tried again later.
"""

import contextlib
import json
import math
import os
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from citeflow.tasks.names import Names
from citeflow.training.standing import Standing
from citeflow.utils.logging import log
from citeflow.utils.progress import repeating

URL = "KUBEFLOW_TRAINER_SERVER_URL"
CA_CERT = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"

POST_EVERY_S = 15.0
"""Kubeflow asks for five seconds or more between two posts of a job."""

TIMEOUT_S = 5.0
MAX_SECONDS = 2**31 - 1


@contextlib.contextmanager
def reporting(standing: Callable[[], Standing], names: Names) -> Iterator[None]:
    """Post the standing each POST_EVERY_S during a block, and when it has ended well.

    Without all three variables it posts nothing.
    """
    if not all(os.environ.get(name) for name in (URL, CA_CERT, TOKEN)):
        yield
        return
    poster = _Poster(lambda: to_request(standing(), names))
    with repeating(poster, POST_EVERY_S, at_end=True):
        yield


class _Poster:
    """Posts at each call; the first failure in a row is logged."""

    def __init__(self, request: Callable[[], object]) -> None:
        self._request = request
        self._has_failed = False

    def __call__(self) -> None:
        try:
            _post(self._request())
            self._has_failed = False
        except Exception as error:  # OSError, ssl, http and ValueError: none of them may matter
            if not self._has_failed:
                log("train", "cannot report to the TrainJob", why=error)
            self._has_failed = True


def _post(request: object) -> None:
    # Certificate and token are renewed while the training runs.
    context = ssl.create_default_context(cafile=os.environ[CA_CERT])
    words = Path(os.environ[TOKEN]).read_text().split()
    if len(words) != 1:  # http.client would name such a token in its error, and so in the log
        raise ValueError("not a file with one token")
    body = json.dumps(request).encode()
    headers = {"Content-Type": "application/json"}
    url = urllib.request.Request(os.environ[URL], data=body, headers=headers)
    # A server that redirects must not have the token passed on to another.
    url.add_unredirected_header("Authorization", f"Bearer {words[0]}")
    # An opener of its own: a proxy of the environment must not see the token.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=TIMEOUT_S):
        pass


def to_request(now: Standing, names: Names) -> dict[str, object]:
    """Return the body of a post."""
    metrics: Mapping[str, float | None] = {
        "step": now.step,
        "loss": now.loss,
        names.score: now.score,
        names.samples: now.samples,
    }
    status: dict[str, object] = {
        "progressPercentage": min(100, math.floor(100 * now.share)),
        "metrics": [
            {"name": name, "value": f"{value:.6g}" if isinstance(value, float) else str(value)}
            for name, value in metrics.items()
            if value is not None
        ],
        "lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if now.seconds_left is not None:
        status["estimatedRemainingSeconds"] = min(MAX_SECONDS, math.ceil(now.seconds_left))
    return {"trainerStatus": status}
