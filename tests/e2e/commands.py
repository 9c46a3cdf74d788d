"""citeflow's commands as a user gives them, and what may be in their way."""

import contextlib
import json
import os
import subprocess
import sys
import time

from kubernetes import client as k8s

from e2e import steps
from e2e.helper import LABEL, LIMITS
from e2e.waiting import POLL_S, require

ROLE = "rbac.authorization.k8s.io"
OUTAGE_S = 300.0
"""Longest time of the command that takes the API server away, which brings it back itself."""


def citeflow(*words, timeout_s, **environment):
    """Run a command in a process of its own; return its exit code, and stdout and stderr."""
    ended = subprocess.run(
        [sys.executable, "-m", "citeflow", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return ended.returncode, ended.stdout, ended.stderr


def watch(trial, run_id, *, timeout_s):
    """Return the exit code of `citeflow runs watch`, and what it says on the terminal."""
    try:
        code, _, said = citeflow("runs", "watch", run_id, *_server(trial), timeout_s=timeout_s)
    except subprocess.TimeoutExpired as error:
        steps.show_logs(trial, run_id)
        said = (error.stderr or b"").decode()
        raise AssertionError(f"not ended after {timeout_s:.0f} s:\n{said}") from None
    print(said)
    return code, said


def check_failure(trial, run_id, *words, timeout_s):
    """Wait for a run to fail in train, with the reason and a hint last on the terminal."""
    code, said = watch(trial, run_id, timeout_s=timeout_s)
    require(code == 75, f"exit code {code}")
    *_, error, hint = said.splitlines()
    require(error.startswith("error: failed at train: "), f"the line before the last: {error}")
    lacking = [each for each in words if each not in error]
    require(not lacking, f"nothing of {lacking} in: {error}")
    require(hint.startswith("hint: "), f"the last line is no hint: {hint}")


def _server(trial):
    options = trial.options
    words = ["--namespace", options.namespace]
    for name in ("host", "token_file"):
        if value := getattr(options, name):
            words += [f"--{name.replace('_', '-')}", value]
    return words


# The API server goes away


def outage(trial):
    """Run the command that takes the API server away; return for how many seconds it was."""
    api = k8s.VersionApi(trial.client.api)
    command = subprocess.Popen(trial.options.outage_command, shell=True)
    end = time.monotonic() + OUTAGE_S
    away_s = 0.0
    while command.poll() is None:
        started = time.monotonic()
        is_away = False
        try:
            api.get_code(_request_timeout=POLL_S)
        except Exception:  # whatever it is, there was no answer
            is_away = True
        time.sleep(POLL_S / 4)
        away_s += is_away * (time.monotonic() - started)
        if time.monotonic() > end:
            command.kill()
            raise AssertionError(f"the command of the outage runs for {OUTAGE_S:.0f} s")
    require(command.returncode == 0, f"the command of the outage: exit code {command.returncode}")
    return away_s


# A kubeconfig with a token


@contextlib.contextmanager
def account(trial):
    """Yield the name of a ServiceAccount that may reach Kubeflow Pipelines, and nothing else.

    Raises:
        ApiException: there may not be one.
    """
    name = f"citeflow-e2e-{trial.tag}"
    namespace = "kubeflow"  # where the service of Kubeflow Pipelines is
    metadata = {"name": name, "labels": {LABEL: trial.tag}}
    core = k8s.CoreV1Api(trial.client.api)
    rbac = k8s.RbacAuthorizationV1Api(trial.client.api)
    rules = [{"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get", "create"]}]
    role = {"apiGroup": ROLE, "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    objects = [
        (core, "service_account", {"metadata": metadata}),
        (rbac, "role", {"metadata": metadata, "rules": rules}),
        (rbac, "role_binding", {"metadata": metadata, "roleRef": role, "subjects": [subject]}),
    ]
    try:
        for api, kind, body in objects:
            getattr(api, f"create_namespaced_{kind}")(namespace, body, **LIMITS)
        yield name, namespace
    finally:
        for api, kind, _ in objects:
            with contextlib.suppress(k8s.ApiException):
                getattr(api, f"delete_namespaced_{kind}")(name, namespace, **LIMITS)


def write_kubeconfig(trial, account, path):
    """Write a kubeconfig whose user has a token of an account, by TokenRequest."""
    name, namespace = account
    request = {"spec": {"audiences": [], "expirationSeconds": 600}}
    core = k8s.CoreV1Api(trial.client.api)
    answer = core.create_namespaced_service_account_token(name, namespace, request, **LIMITS)
    cluster = trial.client.api.configuration
    server = {"server": cluster.host, "insecure-skip-tls-verify": not cluster.verify_ssl}
    if cluster.ssl_ca_cert and cluster.verify_ssl:
        server["certificate-authority"] = cluster.ssl_ca_cert
    context = {"cluster": "e2e", "user": "e2e", "namespace": trial.options.namespace}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "clusters": [{"name": "e2e", "cluster": server}],
        "users": [{"name": "e2e", "user": {"token": answer.status.token}}],
        "contexts": [{"name": "e2e", "context": context}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    return path
