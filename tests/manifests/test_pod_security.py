import copy

import pytest
from pod_security import violations

GOOD = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "containers": [
        {
            "name": "main",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "livenessProbe": {"httpGet": {"port": 80}},
        }
    ],
}
POD = {
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
}
POD_CONTEXT = {
    "runAsNonRoot": False,
    "runAsUser": 0,
    "seccompProfile": {"type": "Unconfined"},
    "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
    "seLinuxOptions": {"role": "sysadm_r"},
    "appArmorProfile": {"type": "Unconfined"},
    "windowsOptions": {"hostProcess": True},
}
CONTAINER = {
    "ports": [{"containerPort": 80, "hostPort": 80}],
    "livenessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}},
    "lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}},
}
CONTEXT = {
    "privileged": True,
    "allowPrivilegeEscalation": True,
    "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
    "procMount": "Unmasked",
    "runAsNonRoot": False,
    "runAsUser": 0,
    "seccompProfile": {"type": "Unconfined"},
    "seLinuxOptions": {"type": "spc_t"},
    "appArmorProfile": {"type": "Unconfined"},
    "windowsOptions": {"hostProcess": True},
}


def changed(place, key, value):
    pod = copy.deepcopy(GOOD)
    where = {
        "pod": pod,
        "pod context": pod["securityContext"],
        "container": pod["containers"][0],
        "context": pod["containers"][0]["securityContext"],
    }[place]
    where[key] = value
    return pod


def test_a_confined_pod_violates_nothing():
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (place, key, value)
        for place, bad in {
            "pod": POD,
            "pod context": POD_CONTEXT,
            "container": CONTAINER,
            "context": CONTEXT,
        }.items()
        for key, value in bad.items()
    ],
)
def test_each_forbidden_setting_is_found(place, key, value):
    assert violations(changed(place, key, value)) != []


@pytest.mark.parametrize("key", ["runAsNonRoot", "seccompProfile"])
def test_what_the_pod_must_say_may_be_said_by_the_container_but_by_neither_is_found(key):
    pod = copy.deepcopy(GOOD)
    value = pod["securityContext"].pop(key)
    assert violations(pod) != []
    pod["containers"][0]["securityContext"][key] = value
    assert violations(pod) == []


@pytest.mark.parametrize("key", ["allowPrivilegeEscalation", "capabilities"])
def test_what_the_container_must_say_is_missed(key):
    pod = copy.deepcopy(GOOD)
    del pod["containers"][0]["securityContext"][key]
    assert violations(pod) != []


def test_capabilities_must_all_be_dropped():
    assert violations(changed("context", "capabilities", {"drop": ["NET_RAW"]})) != []


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_other_containers_count_as_well(kind):
    pod = copy.deepcopy(GOOD)
    pod[kind] = [{"name": "other"}]
    assert all(message.startswith("other: ") for message in violations(pod))
    assert violations(pod) != []


def test_the_old_annotation_of_apparmor_is_read():
    key = "container.apparmor.security.beta.kubernetes.io/main"
    assert violations(GOOD, {key: "unconfined"}) != []
    assert violations(GOOD, {key: "runtime/default"}) == []
