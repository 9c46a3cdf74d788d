"""The profile `restricted` of Kubernetes' Pod Security Standards, `baseline` included.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Callable, Iterator

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP_TYPES = {"RuntimeDefault", "Localhost"}
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def violations(pod_spec: dict, annotations: dict | None = None) -> list[str]:
    """Return what `restricted` forbids of what a pod does."""
    return [
        *(message for check in POD_CHECKS for message in check(pod_spec)),
        *(
            f"{container.get('name')}: {message}"
            for container in _containers(pod_spec)
            for check in CONTAINER_CHECKS
            for message in check(container, pod_spec)
        ),
        *(
            f"annotation {key}: {value}"
            for key, value in (annotations or {}).items()
            if key.startswith(APPARMOR)
            and value != "runtime/default"
            and not value.startswith("localhost/")
        ),
    ]


def _containers(pod: dict) -> list[dict]:
    return [
        entry
        for key in ("initContainers", "containers", "ephemeralContainers")
        for entry in pod.get(key) or []
    ]


def _context(thing: dict) -> dict:
    return thing.get("securityContext") or {}


def _host_namespaces(pod: dict) -> Iterator[str]:
    yield from (f"{key} is true" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))


def _volumes(pod: dict) -> Iterator[str]:
    for volume in pod.get("volumes") or []:
        kinds = set(volume) - {"name"}
        yield from (f"volume {volume.get('name')}: {kind}" for kind in sorted(kinds - VOLUMES))


def _sysctls(pod: dict) -> Iterator[str]:
    names = [entry["name"] for entry in _context(pod).get("sysctls") or []]
    yield from (f"sysctl {name}" for name in names if name not in SYSCTLS)


def _pod_context(pod: dict) -> Iterator[str]:
    context = _context(pod)
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    if (context.get("seccompProfile") or {}).get("type", "RuntimeDefault") not in SECCOMP_TYPES:
        yield "seccompProfile"
    yield from _options(context)


def _options(context: dict) -> Iterator[str]:
    """Yield violations that pods and containers share."""
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess is true"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in (
        "RuntimeDefault",
        "Localhost",
    ):
        yield "appArmorProfile"


def _container_context(container: dict, pod: dict) -> Iterator[str]:
    context = _context(container)
    if context.get("privileged"):
        yield "privileged is true"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    yield from _options(context)


def _non_root(container: dict, pod: dict) -> Iterator[str]:
    own = _context(container).get("runAsNonRoot")
    if (_context(pod).get("runAsNonRoot") if own is None else own) is not True:
        yield "runAsNonRoot is not true"


def _seccomp(container: dict, pod: dict) -> Iterator[str]:
    profile = _context(container).get("seccompProfile") or _context(pod).get("seccompProfile") or {}
    if profile.get("type") not in SECCOMP_TYPES:
        yield "seccompProfile is neither RuntimeDefault nor Localhost"


def _capabilities(container: dict, pod: dict) -> Iterator[str]:
    capabilities = _context(container).get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities are not all dropped"
    added = set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}
    yield from (f"capability {name}" for name in sorted(added))


def _host_ports(container: dict, pod: dict) -> Iterator[str]:
    ports = container.get("ports") or []
    yield from (f"hostPort {port['hostPort']}" for port in ports if port.get("hostPort"))


def _probe_hosts(container: dict, pod: dict) -> Iterator[str]:
    """Since Kubernetes 1.34 a probe or a hook must not name a host."""
    hooks = [
        container.get(key) or {} for key in ("livenessProbe", "readinessProbe", "startupProbe")
    ]
    hooks += [
        hook for hook in (container.get("lifecycle") or {}).values() if isinstance(hook, dict)
    ]
    for hook in hooks:
        hosts = ((hook.get(key) or {}).get("host") for key in ("httpGet", "tcpSocket"))
        yield from (f"host of a probe: {host}" for host in hosts if host)


POD_CHECKS: tuple[Callable, ...] = (_host_namespaces, _volumes, _sysctls, _pod_context)
CONTAINER_CHECKS: tuple[Callable, ...] = (
    _container_context,
    _non_root,
    _seccomp,
    _capabilities,
    _host_ports,
    _probe_hosts,
)
