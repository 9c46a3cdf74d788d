"""Find the server of Kubeflow Pipelines and sign in, as kfp.Client does.

kfp.Client's own methods print links on stdout, wait for ever for an answer, and write into the home
directory. The client therefore calls the generated API below them.
"""

import contextlib
import io
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from citeflow.errors import INSTALL, ConfigError, MissingPackageError, NotFoundError
from citeflow.kubeflow.calls import call
from citeflow.kubeflow.client import KfpClient

STANDALONE = "kubeflow"
"""Namespace of an installation of Kubeflow Pipelines alone."""


def connect(
    *,
    host: str = "",
    namespace: str = "",
    token_file: Path | None = None,
    ssl_ca_cert: Path | None = None,
) -> KfpClient:
    """Find a server that answers. What is not given is found as kfp.Client does.

    Args:
        host: URL of the API or the UI; by default $KF_PIPELINES_ENDPOINT, the service in the
            cluster of this pod, or the service as the kubeconfig reaches it.
        namespace: that of your profile in multi-user mode; else that of the pods of the server's
            runs, by default kubeflow.
        token_file: the bearer token, read again for each request; by default what
            $KF_PIPELINES_SA_TOKEN_PATH names.
        ssl_ca_cert: certificate authority of the server, as PEM.

    Raises:
        MissingPackageError: kfp is not installed.
        UnavailableError: the server does not answer.
        ConfigError: the server refuses us, or is multi-user and there is no namespace.
    """
    if host and not host.startswith(("http://", "https://")):
        raise ConfigError("--host", host, hint="a URL that begins with http:// or https://")
    credentials = _credentials(token_file)
    kfp_client = _client_class(credentials)
    authority = str(_existing(ssl_ca_cert)) if ssl_ca_cert else None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # one at every start, meant for users of kfp 1
        client = kfp_client(host=host or None, credentials=credentials, ssl_ca_cert=authority)
    health = client.get_kfp_healthz()
    profile = ""
    if health.multi_user:
        profile = namespace or client.get_user_namespace()
        if not profile:
            hint = "--namespace with that of your profile"
            raise ConfigError("Kubeflow Pipelines is shared by several users", hint=hint)
    return KfpClient(
        kfp=client,
        host=host or os.environ.get("KF_PIPELINES_ENDPOINT", ""),
        namespace=profile,
        pods_namespace=profile or namespace or STANDALONE,
        names_are_dns=health.pipeline_store == "kubernetes",
    )


def _client_class(credentials: Any) -> Any:
    try:
        import kfp
    except ImportError:
        raise MissingPackageError("package is not installed", "kfp", hint=INSTALL) from None
    import urllib3

    class Client(kfp.Client):  # type: ignore[misc]
        """kfp.Client without its own retries, its prints and its file in the home directory.

        It also keeps the path of the service behind an API server, which kfp's own loses.
        """

        def _load_config(self, *args: Any, **options: Any) -> Any:
            config = super()._load_config(*args, **options)
            config.retries = urllib3.Retry(
                total=0, redirect=False, respect_retry_after_header=False
            )
            if "://" not in config.host:  # the service in a pod's cluster, as kfp names it
                config.host = f"http://{config.host}"
            if "/proxy/" in config.host:
                _keep_host(config, credentials)
            return config

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            return call(self.healthzs.healthz_service_get_healthz)

        def set_user_namespace(self, namespace: str) -> None:
            self._context_setting["namespace"] = namespace

    return Client


def _keep_host(config: Any, credentials: Any) -> None:
    """Let credentials, or else the kubeconfig's hook, renew the token alone.

    The hook that the kubernetes package sets puts all of the kubeconfig into the configuration
    before each request: the URL of the API server too, without the path to the service behind it.
    """
    config.host = config.host.rstrip("/")
    renew = (credentials or config).refresh_api_key_hook
    if renew:
        renewed = SimpleNamespace(api_key={})

        def refresh(config: Any) -> None:
            renew(renewed)
            config.api_key.update(renewed.api_key)

        config.refresh_api_key_hook = refresh


def _credentials(token_file: Path | None) -> Any:
    path = token_file or os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if not path:
        return None
    if len(_existing(Path(path)).read_text().split()) != 1:
        raise ConfigError("not a file with one token", path)
    from kfp.client import ServiceAccountTokenVolumeCredentials

    return ServiceAccountTokenVolumeCredentials(path=str(path))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotFoundError("no such file", path)
    return path
