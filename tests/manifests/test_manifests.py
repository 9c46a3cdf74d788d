import re
import shutil

import kustomize
import pytest
import yaml
from kustomize import CLUSTER_SCOPED, containers, pod_template, split_image
from pod_security import violations

from citeflow import __version__
from citeflow.kubernetes.launchers.ray import DASHBOARD_PORT
from citeflow.kubernetes.pod_template import METRICS_PORT, ports

SECRET_KEY = re.compile(
    r"pass(word|wd)?$|token$|secret(_?key)?$|access_?key(_?id)?$|credential|private_?key", re.I
)
SECRET_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|eyJ[A-Za-z0-9_-]{20,}|gh[pousr]_\w{20,}|minio123"
)
HARMLESS_KEYS = {
    "automountServiceAccountToken",
    "serviceAccountToken",
    "secretKeyKey",
    "accessKeyKey",
}
STEP = {
    "app.kubernetes.io/part-of": "citeflow",
    "pipeline/runid": "1",
    "pipelines.kubeflow.org/v2_component": "true",
}
WORKER = {
    "app.kubernetes.io/part-of": "citeflow",
    "app.kubernetes.io/component": "train",
    "app.kubernetes.io/managed-by": "citeflow",
    "pipeline/runid": "1",
}
HEAD = {**WORKER, "ray.io/node-type": "head"}
STAGES = ("download", "preprocess", "train", "evaluate", "publish", "index")
BYTES = {"": 1, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 1e-3}


def of_kind(objects, kind):
    return {thing["metadata"]["name"]: thing for thing in objects if thing["kind"] == kind}


def pods(objects):
    return {
        thing["metadata"]["name"]: pod_template(thing) for thing in objects if pod_template(thing)
    }


def selects(selector, labels):
    """Tell whether a label selector selects a pod with these labels."""
    assert set(selector) <= {"matchLabels"}, "the tests read no other selectors"
    return selector.get("matchLabels", {}).items() <= labels.items()


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)(\D*)", str(text)).groups()
    return float(number) * BYTES[unit]


def leaves(thing, path=()):
    if isinstance(thing, dict | list):
        for key, value in thing.items() if isinstance(thing, dict) else enumerate(thing):
            yield from leaves(value, (*path, key))
    else:
        yield path, thing


# pods


def test_nfs_server_alone_violates_restricted(folder, render):
    objects = render(folder / "nfs-server")
    (pod,) = pods(objects).values()
    assert sorted(violations(pod["spec"])) == [
        "ganesha: capability DAC_READ_SEARCH",
        "ganesha: capability FOWNER",
        "ganesha: capability SETGID",
        "ganesha: capability SETUID",
        "ganesha: runAsNonRoot is not true",
        "ganesha: runAsUser is 0",
    ]
    labels = of_kind(objects, "Namespace")["citeflow-storage"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_namespace_for_runs_enforces_restricted(folder, render):
    labels = of_kind(render(folder / "namespace"), "Namespace")["citeflow"]["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert f"pod-security.kubernetes.io/{mode}-version" in labels


def test_overlay_pods_run_as_user_1000(overlay):
    for name, pod in pods(overlay).items():
        context = pod["spec"]["securityContext"]
        assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {1000}, name


def test_reaper_alone_gets_a_token_of_the_api(overlay):
    tokens = {
        name: pod["spec"]["automountServiceAccountToken"] for name, pod in pods(overlay).items()
    }
    assert {name for name, mounted in tokens.items() if mounted} == {"citeflow-reaper"}
    for account in of_kind(overlay, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_images_have_a_fixed_tag_or_digest(everything):
    for container in (
        part for objects in everything.values() for thing in objects for part in containers(thing)
    ):
        _, tag, digest = split_image(container["image"])
        assert tag not in ("", "latest")
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert not digest or re.fullmatch(r"sha256:[0-9a-f]{64}", digest)


def test_images_of_citeflow_have_this_version(overlay):
    images = {split_image(part["image"])[:2] for thing in overlay for part in containers(thing)}
    own = {image for image in images if image[0].startswith("citeflow-")}
    assert own
    assert {tag for _, tag in own} == {f"{__version__}-python3.11"}


def test_images_of_others_are_pinned_by_digest(folder, render):
    for name in ("gke", "gke-nfs", "kind"):
        images = {
            part["image"]
            for thing in render(folder / "overlays" / name)
            for part in containers(thing)
        }
        foreign = {image for image in images if not image.startswith("citeflow-")}
        assert foreign
        assert all(bool(split_image(image)[2]) == (name != "kind") for image in foreign)


def test_volume_mounts_refer_to_volumes(everything):
    for objects in everything.values():
        claims, maps = of_kind(objects, "PersistentVolumeClaim"), of_kind(objects, "ConfigMap")
        for name, pod in pods(objects).items():
            volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
            spec = pod["spec"]
            mounts = [
                mount
                for part in spec.get("initContainers", []) + spec["containers"]
                for mount in part.get("volumeMounts", [])
            ]
            assert {mount["name"] for mount in mounts} == set(volumes), name
            for volume in volumes.values():
                if "configMap" in volume:
                    assert volume["configMap"]["name"] in maps
                if "persistentVolumeClaim" in volume and claims:
                    assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_readers_mount_the_volume_read_only(overlay):
    for name, pod in pods(overlay).items():
        for mount in pod["spec"]["containers"][0]["volumeMounts"]:
            if mount["name"] == "data":
                assert bool(mount.get("readOnly")) == (name != "citeflow-volume")


# secrets


def test_manifests_hold_no_secret(folder, everything):
    for objects in everything.values():
        assert of_kind(objects, "Secret") == {}
        for path, value in (leaf for thing in objects for leaf in leaves(thing)):
            key = str(path[-1])
            assert key in HARMLESS_KEYS or not SECRET_KEY.search(key), path
            for line in str(value).splitlines():
                assert not SECRET_VALUE.search(line), path
    for path in folder.rglob("*"):
        assert path.is_dir() or not SECRET_VALUE.search(path.read_text()), path


# storage


def test_claim_is_for_many_pods_and_bound_to_its_volume(overlay):
    claim = of_kind(overlay, "PersistentVolumeClaim")["citeflow-data"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]
    for name, volume in of_kind(overlay, "PersistentVolume").items():
        spec = volume["spec"]
        assert (claim["volumeName"], claim["storageClassName"], spec["storageClassName"]) == (
            name,
            "",
            "",
        )
        assert spec["accessModes"] == claim["accessModes"]
        assert quantity(spec["capacity"]["storage"]) >= quantity(
            claim["resources"]["requests"]["storage"]
        )
        assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    for name, kind in of_kind(overlay, "StorageClass").items():
        assert (claim["storageClassName"], kind["reclaimPolicy"]) == (name, "Retain")


def test_host_path_is_not_created_for_root(folder, render):
    (volume,) = of_kind(render(folder / "overlays" / "kind"), "PersistentVolume").values()
    assert volume["spec"]["hostPath"]["type"] == "Directory"


def test_nfs_server_maps_clients_to_user_1000(folder, render):
    objects = render(folder / "nfs-server")
    config = of_kind(objects, "ConfigMap")["citeflow-nfs"]["data"]["ganesha.conf"]
    said = dict(re.findall(r"(\w+) = (.*);", config))
    assert (said["Squash"], said["Anonymous_Uid"], said["Anonymous_Gid"]) == ("All", "1000", "1000")
    (volume,) = of_kind(render(folder / "overlays" / "gke-nfs"), "PersistentVolume").values()
    assert volume["spec"]["nfs"]["path"] == said["Pseudo"]
    (port,) = of_kind(objects, "Service")["citeflow-nfs"]["spec"]["ports"]
    assert str(port["port"]) == said["NFS_Port"]


# names that refer to each other


def test_overlay_moves_to_another_namespace_by_one_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "manifests")
    for path in (tmp_path / "manifests" / "overlays").glob("*/kustomization.yaml"):
        text, count = re.subn(r"(?m)^namespace: .*$", "namespace: elsewhere", path.read_text())
        assert count == 1
        path.write_text(text)
        for thing in kustomize.render(path.parent):
            names = {value for keys, value in leaves(thing) if keys[-1] == "namespace"}
            is_global = thing["kind"] in CLUSTER_SCOPED
            assert names - {"elsewhere"} == set(), path
            assert is_global or names, path


def test_objects_are_in_the_namespace_of_the_overlay(overlay, request):
    home = {"kubeflow-user-example-com"} if "kubeflow]" in request.node.name else {"kubeflow"}
    assert {
        thing["metadata"]["namespace"] for thing in overlay if thing["kind"] not in CLUSTER_SCOPED
    } == home
    assert of_kind(overlay, "Namespace") == {}


def test_services_select_pods_and_name_their_ports(everything):
    for objects in everything.values():
        for service in of_kind(objects, "Service").values():
            selector = service["spec"]["selector"]
            (pod,) = [
                pod
                for pod in pods(objects).values()
                if selector.items() <= pod["metadata"]["labels"].items()
            ]
            open_ports = {
                port["name"] for part in pod["spec"]["containers"] for port in part["ports"]
            }
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports


def test_deployments_select_their_own_pods_only(everything):
    for objects in everything.values():
        for name, thing in of_kind(objects, "Deployment").items():
            found = {
                other
                for other, pod in pods(objects).items()
                if selects(thing["spec"]["selector"], labels(pod))
            }
            assert found == {name}


def labels(pod):
    return pod["metadata"]["labels"]


def test_probes_use_open_ports_and_the_prefix(everything):
    for part in (
        part for objects in everything.values() for thing in objects for part in containers(thing)
    ):
        ports = {port["name"] for port in part.get("ports", [])}
        for probe in (
            part[key] for key in ("startupProbe", "readinessProbe", "livenessProbe") if key in part
        ):
            how = probe.get("httpGet") or probe["tcpSocket"]
            assert how["port"] in ports
            if part["name"] == "tensorboard":
                assert how["path"] == "/tensorboard/"
                assert "--path_prefix=/tensorboard" in part["args"]


def test_tensorboard_listens_where_its_service_sends(folder, render):
    pod = pods(render(folder / "components" / "web"))["citeflow-tensorboard"]
    (part,) = pod["spec"]["containers"]
    assert f"--port={part['ports'][0]['containerPort']}" in part["args"]
    assert "--logdir=/mnt/citeflow/logs" in part["args"]
    assert {"--load_fast=false", "--reload_multifile=true"} <= set(part["args"])


def test_reaper_runs_every_minute_but_never_twice_at_once(overlay):
    spec = of_kind(overlay, "CronJob")["citeflow-reaper"]["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    job = spec["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] <= 240
    (part,) = job["template"]["spec"]["containers"]
    assert part["command"] == ["python3", "-m", "citeflow", "reap"]
    assert {"name": "HOME", "value": "/tmp"} in part["env"]
    assert job["template"]["spec"]["serviceAccountName"] == "citeflow-reaper"


# rights


def test_bindings_refer_to_existing_roles_and_accounts(overlay, request):
    roles, accounts = of_kind(overlay, "Role"), of_kind(overlay, "ServiceAccount")
    step = "default-editor" if "kubeflow]" in request.node.name else "pipeline-runner"
    bindings = of_kind(overlay, "RoleBinding")
    assert {binding["roleRef"]["name"] for binding in bindings.values()} == set(roles)
    for binding in bindings.values():
        (subject,) = binding["subjects"]
        assert subject["name"] in {*accounts, step}
        assert subject["namespace"] == binding["metadata"]["namespace"]
    assert bindings["citeflow-launcher"]["subjects"][0]["name"] == step


def test_rights_are_named_and_of_the_namespace(everything):
    for folder, objects in everything.items():
        if folder.name != "platform":  # whose rights are those of test_platform.py
            assert of_kind(objects, "ClusterRole") == of_kind(objects, "ClusterRoleBinding") == {}
        roles = {**of_kind(objects, "Role"), **of_kind(objects, "ClusterRole")}
        for rule in (rule for role in roles.values() for rule in role["rules"]):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


# network


def test_policies_select_pods_of_citeflow_only(overlay):
    known = [labels(pod) for pod in pods(overlay).values()] + [WORKER]
    for name, policy in of_kind(overlay, "NetworkPolicy").items():
        selector = policy["spec"]["podSelector"]
        assert not selects(selector, {}), f"{name} would mean pods of others"
        assert selects(selector, {**selector["matchLabels"]})
        assert any(selects(selector, pod) for pod in known), name


def test_policies_deny_ingress_to_every_pod(overlay):
    policies = of_kind(overlay, "NetworkPolicy").values()
    steps = [{**STEP, "app.kubernetes.io/component": stage} for stage in STAGES]
    for pod in [labels(pod) for pod in pods(overlay).values()] + [WORKER, *steps]:
        mine = [
            policy["spec"] for policy in policies if selects(policy["spec"]["podSelector"], pod)
        ]
        assert any("Ingress" in spec["policyTypes"] for spec in mine), pod


def test_policies_leave_egress_to_steps_alone(overlay):
    policies = of_kind(overlay, "NetworkPolicy").values()

    def held(pod):
        return any(
            "Egress" in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], pod)
            for one in policies
        )

    assert not any(held({**STEP, "app.kubernetes.io/component": stage}) for stage in STAGES)
    assert all(held(labels(pod)) for pod in pods(overlay).values())
    assert held(WORKER)


def test_policy_lets_workers_reach_each_other_dns_and_trainer(folder, render):
    spec = of_kind(render(folder / "base"), "NetworkPolicy")["citeflow-workers"]["spec"]
    (inward,), (outward, dns, trainer) = spec["ingress"], spec["egress"]
    assert "ports" not in inward
    assert "ports" not in outward
    assert selects(inward["from"][0]["podSelector"], WORKER)
    assert selects(outward["to"][0]["podSelector"], WORKER)
    assert {port["port"] for port in dns["ports"]} == {53}
    assert [port["port"] for port in trainer["ports"]] == [10443]
    assert set(trainer["to"][0]) == {"namespaceSelector", "podSelector"}


def test_policy_lets_nginx_alone_reach_tensorboard(folder, render):
    objects = render(folder / "components" / "web")
    (rule,) = of_kind(objects, "NetworkPolicy")["citeflow-tensorboard"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert [
        name for name, pod in pods(objects).items() if selects(peer["podSelector"], labels(pod))
    ] == ["citeflow-web"]


def test_policies_open_existing_ports(everything):
    for objects in everything.values():
        for policy in of_kind(objects, "NetworkPolicy").values():
            selector = policy["spec"]["podSelector"]
            ports = {
                entry["port"]
                for rule in policy["spec"].get("ingress", [])
                for entry in rule.get("ports", [])
            }
            chosen = [pod for pod in pods(objects).values() if selects(selector, labels(pod))]
            of_workers = {METRICS_PORT} if selects(selector, WORKER) else set()
            of_heads = {DASHBOARD_PORT} if selects(selector, HEAD) else set()
            assert ports <= of_workers | of_heads | {
                port["name"]
                for pod in chosen
                for part in pod["spec"]["containers"]
                for port in part.get("ports", [])
            }


def test_policy_lets_prometheus_alone_reach_worker_metrics(folder, render):
    objects = render(folder / "components" / "monitoring")
    policy = of_kind(objects, "NetworkPolicy")["citeflow-metrics"]["spec"]
    monitor = of_kind(objects, "PodMonitor")["citeflow-workers"]["spec"]
    for selector in (policy["podSelector"], monitor["selector"]):
        assert selects(selector, WORKER)
        assert not selects(selector, STEP)
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    assert set(peer) == {"namespaceSelector", "podSelector"}
    assert [port["port"] for port in rule["ports"]] == [METRICS_PORT]
    (endpoint,) = monitor["podMetricsEndpoints"]
    addresses = [
        step["replacement"]
        for step in endpoint["relabelings"]
        if step.get("targetLabel") == "__address__"
    ]
    assert addresses == [f"$1:{METRICS_PORT}"]
    (kept,) = [step for step in endpoint["relabelings"] if step["action"] == "keep"]
    known = [port.name for port in ports()] + [""]
    assert [name for name in known if re.fullmatch(kept["regex"], name)] == ["metrics", ""]


def test_policy_lets_kuberay_alone_reach_the_head_of_a_cluster(folder, render):
    (policy,) = render(folder / "components" / "ray")
    chosen = policy["spec"]["podSelector"]
    assert [selects(chosen, each) for each in (HEAD, WORKER, STEP)] == [True, False, False]
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert [port["port"] for port in rule["ports"]] == [DASHBOARD_PORT]


@pytest.mark.parametrize("key", ["app.kubernetes.io/name", "app.kubernetes.io/part-of"])
def test_objects_have_labels(everything, key):
    for thing in (thing for objects in everything.values() for thing in objects):
        assert key in thing["metadata"]["labels"] or (
            thing["kind"] == "Namespace" and key.endswith("name")
        )


def test_kustomizations_list_all_files(folder):
    for path in folder.rglob("kustomization.yaml"):
        said = yaml.safe_load(path.read_text())
        generated = {
            name for entry in said.get("configMapGenerator", []) for name in entry["files"]
        }
        used = {*said.get("resources", []), *generated, "kustomization.yaml", "Dockerfile"}
        assert {file.name for file in path.parent.iterdir() if file.is_file()} <= used, path
