"""A cluster on loopback on which the platform's users have namespaces, and their runs take place.

Their Jobs run for real: the command of a pod is a process of this machine, which sees the folder of
the user's claim where the pod mounts it, and nothing else of `/mnt`.
"""

import contextlib
import shutil
import subprocess
import tempfile

import yaml

from .cluster import Kubelet
from .controllers import Controllers
from .kube_api import KubeApi

MOUNT = """
mount -t tmpfs none /mnt
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""
"""Shell that binds pairs of a folder and where it is seen, and becomes the command behind `--`."""

UNSHARE = ("unshare", "--map-root-user", "--mount")
MOST_OF_LOG = 2_048
"""Bytes of a log that become the message of a container that failed."""


def can_mount():
    """Tell whether this machine lets a process have mounts of its own."""
    if not shutil.which(UNSHARE[0]):
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [*UNSHARE, "sh", "-ec", MOUNT, "sh", folder, "/mnt/x", "--", "true"]
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


class Node(Kubelet):
    """A node that runs the pods of users, each with the claims of its namespace."""

    def __init__(self, kube, controllers, folder):
        messages = folder / "messages"
        messages.mkdir()
        super().__init__(kube, messages, {})
        self.grace = 60.0
        self.pause = 0.2
        self.volumes = folder / "volumes"
        self._controllers = controllers
        self._synced = None

    def finish(self, name, exit_code, reason="", message=""):
        container, _ = self._find(name)
        lines = [line for _, line in self.kube.lines[container.uid, 0]]
        said = "\n".join(lines)[-MOST_OF_LOG:] if exit_code else ""
        super().finish(name, exit_code, reason, message or said)

    def _step(self):
        super()._step()
        standing = (self.store.version, len(self.store.objects))
        if standing != self._synced:
            self._controllers.sync()
            self._synced = standing

    def _inside(self, pod, argv):
        namespace = pod["metadata"]["namespace"]
        claims = {volume["name"] for volume in pod["spec"]["volumes"] if is_claim(volume)}
        binds = []
        for mount in pod["spec"]["containers"][0].get("volumeMounts", ()):
            if mount["name"] in claims:
                folder = self.volumes / namespace
                folder.mkdir(parents=True, exist_ok=True)
                binds += [str(folder), mount["mountPath"]]
        return [*UNSHARE, "sh", "-ec", MOUNT, "sh", *binds, "--", *argv]


def is_claim(volume):
    return bool(volume.get("persistentVolumeClaim"))


@contextlib.contextmanager
def serving(folder):
    """Serve a cluster; yield the environment and the options of a platform that uses it."""
    with KubeApi(without=("Profile", "LocalQueue")) as kube:
        controllers = Controllers(kube)
        controllers.starts = False
        kubeconfig = kube.write_kubeconfig(folder / "kubeconfig")
        settings = folder / "cluster.yaml"
        settings.write_text(yaml.safe_dump({"volumes": str(folder / "volumes")}))
        with Node(kube, controllers, folder):
            yield {"KUBECONFIG": str(kubeconfig)}, ["--cluster", str(settings)]
