"""The cluster of the trial, as environment variables describe it: docs/e2e.md."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from citeflow import __version__
from citeflow.kubernetes.job_spec import IMAGE, MOUNT

PREFIX = "CITEFLOW_E2E"


@dataclass(frozen=True, kw_only=True)
class Options:
    """CITEFLOW_E2E_<NAME> each; CITEFLOW_E2E=1 alone takes the kubeconfig's cluster and these."""

    host: str = ""
    namespace: str = "kubeflow"
    step_image: str = f"citeflow-step:{__version__}-python3.11"
    train_image: str = IMAGE
    data_root: str = MOUNT
    storage_class: str = ""
    service_account: str = "pipeline-runner"
    tensorboard: str = ""
    launcher: str = "pytorchjob"
    cpu: str = "500m"
    memory: str = "1Gi"
    minutes: float = 15.0
    papers: int = 1000
    epochs: int = 60
    victim: int = 1
    token_file: str = ""
    outage_command: str = ""
    keep: bool = False


def read(environment: Mapping[str, str] = os.environ) -> Options | None:
    """Return the options, or None where no cluster is asked for.

    Raises:
        ValueError: a name is unknown, or a value does not fit.
    """
    given = {
        name: value for name, value in environment.items() if name.startswith(PREFIX) and value
    }
    if not given or given.get(PREFIX) == "0":
        return None
    known = {f"{PREFIX}_{option.name.upper()}": option for option in fields(Options)}
    values = {}
    for name, text in given.items():
        if name == PREFIX:
            continue
        if name not in known:
            raise ValueError(f"{name} is not an option; there are {', '.join(known)}")
        kind = known[name].type
        values[known[name].name] = (
            text.lower() not in ("0", "no", "false") if kind is bool else kind(text)
        )
    options = Options(**values)
    for image in (options.step_image, options.train_image):
        if image.endswith(":latest"):
            raise ValueError(f"{image}: an image has a version, never :latest")
    return options
