"""Row F15: machines that grant little, as a strict security context does; by mount namespaces."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

STRANGER = 54321
"""A user without an entry in passwd."""

SHARED_KB = 64
SETTINGS = [
    "model.hidden_channels=64",
    "train.nodes_per_batch=100",
    "train.epochs=1",
    "train.num_validations=1",
    "train.num_negatives=32",
]
DATASET = ["synthetic.num_papers=600", "data.eval_negatives=50", "data.holdout=0.2"]

OPEN_PYTHON = """
mount --bind {base} {spare}
mount -t tmpfs -o mode=755 tmpfs {closed}
mkdir -p {base}
mount --bind {spare} {base}
"""
"""Opens the closed folder above this python to every user."""

STEPS = {
    "tiny /dev/shm": f"mount -t tmpfs -o size={SHARED_KB}k,mode=1777 tmpfs /dev/shm",
    "read-only root": (
        'mount --bind /tmp /tmp; mount --bind "$DATA" "$DATA"; mount -o remount,bind,ro /'
    ),
    "no HOME": "unset HOME",
    "unknown user": (
        f'as="setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups --no-new-privs"'
    ),
}
"""Shell that takes each thing away in a mount namespace; the unknown user comes last, as it may not
mount."""

PROBE = f"""
import json, os, pwd, shutil
print(json.dumps([name for name, is_so in {{
    "tiny /dev/shm": shutil.disk_usage("/dev/shm").total <= {SHARED_KB} << 10,
    "read-only root": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
    "no HOME": "HOME" not in os.environ,
    "unknown user": os.getuid() == {STRANGER} not in [user.pw_uid for user in pwd.getpwall()],
}}.items() if is_so]))
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Exit code and output of a confined command, and what was taken from it."""

    code: int
    taken: list[str]
    output: str


@pytest.fixture
def place(prepared):
    """A folder that every user may read, with a graph and a data root of the unknown user."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("it needs root, unshare, setpriv and mount")
    with tempfile.TemporaryDirectory(prefix="citeflow-confined-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        shutil.copytree(prepared.graph, place / "graph")
        (place / "data").mkdir()
        (place / "python").mkdir()
        os.chown(place / "data", STRANGER, STRANGER)
        yield place


@pytest.fixture
def confined(place, checkout):
    """Run citeflow with some things taken away."""

    base = Path(sys.base_prefix)
    closed = next(
        (folder for folder in reversed(base.parents) if not folder.stat().st_mode & stat.S_IXOTH),
        None,
    )
    opened = OPEN_PYTHON.format(base=base, spare=place / "python", closed=closed) if closed else ""

    def run(takes: list[str], *arguments: str, more: str = "") -> Ended:
        steps = "\n".join(
            [opened, "as=", *(step for name, step in STEPS.items() if name in takes), more]
        )
        script = (
            f'{steps}\ncd /\n$as env "$PYTHON" -c "$PROBE" || exit 99\n'
            'exec $as env "$PYTHON" -m citeflow "$@"\n'
        )
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(checkout / "src"),
            "HOME": "/root",
            "PROBE": PROBE,
        }
        variables |= {"PYTHON": sys.executable, "DATA": str(place / "data")}
        space = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        space += ["sh", "-euc", script, "sh"]
        done = subprocess.run(
            [*space, *arguments],
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode == 99 and "unknown user" in takes:
            pytest.skip(f"the python of these tests is closed to other users: {done.stderr[-200:]}")
        assert done.stdout.startswith("["), done.stderr
        taken, _, output = done.stdout.partition("\n")
        return Ended(code=done.returncode, taken=json.loads(taken), output=output + done.stderr)

    return run


def with_settings(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def training(place: Path) -> list[str]:
    command = ["train", str(place / "graph"), "--run-name", "confined", "--workers", "2"]
    return [*command, "--data-root", str(place / "data"), *with_settings(*SETTINGS)]


def trains(confined, place, takes):
    ended = confined(takes, *training(place))
    assert set(takes) <= set(ended.taken)
    assert ended.code == 0, ended.output
    assert "workers=2" in ended.output
    assert (place / "data" / "runs" / "confined" / "model" / "model.safetensors").stat().st_uid == (
        STRANGER if "unknown user" in takes else 0
    )


@pytest.mark.fault("F15")
def test_workers_train_without_any_of_it(confined, place):
    trains(confined, place, list(STEPS))


@pytest.mark.fault("F15", nightly=True)
@pytest.mark.parametrize("taken", STEPS)
def test_workers_train_without_one_of_it(confined, place, taken):
    trains(confined, place, [taken])


@pytest.mark.fault("F15", nightly=True)
def test_pipeline_runs_without_any_of_it(confined, place):
    arguments = ["run", "--run-name", "all", "--data-root", str(place / "data"), "--workers", "2"]
    ended = confined(list(STEPS), *arguments, *with_settings(*DATASET, *SETTINGS))
    assert set(STEPS) <= set(ended.taken)
    assert ended.code == 0, ended.output
    assert list((place / "data").rglob("report.html"))


def reason(ended: Ended) -> str:
    """Return the one line with the reason why a command ended before it trained."""
    assert ended.code not in (0, 1), ended.output
    assert "evaluated" not in ended.output
    (line,) = (line for line in ended.output.splitlines() if line.startswith("error:"))
    return line


@pytest.mark.fault("F15", nightly=True)
def test_data_root_that_cannot_be_written_to_is_an_error_before_training(confined, place):
    ended = confined(list(STEPS), *training(place), more='mount -o remount,bind,ro "$DATA"')
    assert "Read-only file system" in reason(ended)
    assert "Traceback" not in ended.output
    os.chown(place / "data", 0, 0)
    ended = confined(["no HOME", "unknown user"], *training(place))
    assert "Permission denied" in reason(ended)
    assert "Traceback" not in ended.output


@pytest.mark.fault("F15", nightly=True)
def test_no_room_for_shared_arrays_is_an_error_before_training(confined, place):
    full = "mount -t tmpfs -o size=64k,mode=1777 tmpfs $DATA/tmp; export TMPDIR=$DATA/tmp"
    (place / "data" / "tmp").mkdir(mode=0o777)
    ended = confined(["tiny /dev/shm"], *training(place), more=full)
    assert ended.taken == ["tiny /dev/shm"]
    assert "no room for an array that the workers share" in reason(ended)
