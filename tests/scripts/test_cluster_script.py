"""scripts/cluster.sh with stand-ins for the programs that it calls."""

import re
import shlex
import shutil
import subprocess

import pytest

STAND_IN = r"""#!/bin/bash
printf "%s" "${0##*/}" >> "$STATE/calls"
printf ' %s' "$@" >> "$STATE/calls"
echo >> "$STATE/calls"
call="${0##*/} $*"
case $call in
  $FAILS) echo 'the reason' >&2; exit 1 ;;
  'kind version') echo 'kind v0.33.0 go1.26 linux/amd64' ;;
  'k3d version') echo 'k3d version v5.8.3' ;;
  'kind get clusters') cat "$STATE/cluster" ;;
  'k3d cluster list citeflow') test -e "$STATE/cluster" ;;
  *' create '*) echo citeflow > "$STATE/cluster" ;;
esac
"""
STAND_INS = ("docker", "git", "make", "kubectl", "kind", "k3d", "citeflow")
SYSTEM = ("bash", "cat", "dirname", "grep", "mkdir", "rm", "sed")


@pytest.fixture
def machine(checkout, tmp_path):
    """A copy of what the script reads, and a PATH with stand-ins and little else."""
    for name in ("scripts/cluster.sh", "src/citeflow/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(checkout / name, tmp_path / name)
    (tmp_path / "pip.conf").touch()
    (tmp_path / "bin").mkdir()
    for name in SYSTEM:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    for name in STAND_INS:
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def script(machine):
    """Runs the script; returns its exit code, what it printed, and the calls it made."""

    def run(*arguments, fails="nothing", **given):
        calls = machine / "calls"
        calls.write_text("")
        done = subprocess.run(
            ["bash", machine / "scripts" / "cluster.sh", *arguments],
            env={"PATH": str(machine / "bin"), "STATE": str(machine), "FAILS": fails, **given},
            cwd=machine / "bin",
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr, calls.read_text().splitlines()

    return run


def commands(shown):
    """Return the commands of a dry run, without those that a condition guards."""
    lines = shown.replace("||\n  ", "|| ").splitlines()
    return [
        " ".join(shlex.split(line))
        for line in lines
        if line.split(" ")[0] in STAND_INS and "||" not in line
    ]


@pytest.mark.parametrize("kind", ["kind", "k3d"])
def test_guide_documents_the_dry_run(checkout, script, kind):
    code, shown, said, calls = script("up", kind, "--dry-run")
    assert (code, said, calls) == (0, "", [])
    guide = (checkout / "docs" / "cluster.md").read_text()
    (documented,) = re.findall(rf"```sh\n(export PATH=[^\n]*/{kind}\..*?)```", guide, re.S)
    assert documented == shown


@pytest.mark.parametrize(("kind", "options"), [("kind", ()), ("kind", ("--trainer",)), ("k3d", ())])
def test_up_does_what_its_dry_run_shows_again_and_again(script, kind, options):
    _, shown, _, _ = script("up", kind, *options, "--dry-run")
    for number in (1, 2):
        code, _, said, calls = script("up", kind, *options)
        assert code == 0, said
        assert ("warning: not k3d v5.9.0" in said) == (kind == "k3d")
        created = [call for call in calls if f"{kind} create" in call or "cluster create" in call]
        assert len(created) == (1 if number == 1 else 0)
        expected = commands(shown)
        assert [call for call in calls if call in expected] == expected


def test_up_finds_a_file_that_is_named_from_where_it_is_called(machine, script):
    (machine / "bin" / "my pip.conf").touch()
    code, _, said, calls = script("up", "kind", PIP_CONF="my pip.conf")
    assert code == 0, said
    assert f"make image PIP_CONF={machine}/bin/my pip.conf" in calls
    code, _, said, calls = script("up", "kind", PIP_CONF="../bin")
    assert code == 66
    assert f"error: no such file: {machine}/bin/../bin\n" in said


def test_make_hands_on_the_name_of_a_file_with_blanks(checkout):
    command = ["make", "image", "ENGINE=printf [%s]", "IMAGES=step"]
    for given, secret in (["PIP_CONF=a b"], "[--secret][id=pip,src=a b]"), ([], ""):
        done = subprocess.run([*command, *given], cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0
        assert re.search(r"\[--secret\]\[[^]]*\]|$", done.stdout)[0] == secret


def test_up_stops_at_the_first_step_that_fails(script):
    code, _, said, calls = script(
        "up", "kind", fails="kubectl -n kubeflow rollout status deployment/training-operator *"
    )
    assert code == 70
    assert said.splitlines()[-3:-1] == [
        "the reason",
        "error: step failed: training operator v1.9.4, for PyTorchJobs",
    ]
    assert said.splitlines()[-1].startswith("hint: ")
    assert "rollout status" in calls[-1]


@pytest.mark.parametrize("tool", STAND_INS)
def test_up_names_a_missing_tool_and_installs_nothing(machine, script, tool):
    (machine / "bin" / tool).unlink()
    code, shown, said, calls = script("up", "k3d" if tool == "k3d" else "kind")
    assert (code, shown, calls) == (69, "", [])
    assert re.fullmatch(f"error: not installed: {tool}\nhint: .+\n", said)


def test_down_and_doctor_take_the_cluster_that_is_there(machine, script):
    kubeconfig = machine / "build" / "k3d.kubeconfig"
    kubeconfig.parent.mkdir()
    kubeconfig.touch()
    assert script("doctor")[3][-1] == "citeflow doctor --service-account pipeline-runner"
    assert script("down")[3] == ["k3d cluster delete citeflow"]
    assert not kubeconfig.exists()
    assert script("down")[3] == [
        "kind delete cluster --name citeflow --kubeconfig build/kind.kubeconfig"
    ]


@pytest.mark.parametrize("arguments", [(), ("up",), ("up", "kind", "--now"), ("start", "kind")])
def test_script_explains_its_usage(script, arguments):
    code, _, said, calls = script(*arguments)
    assert (code, calls) == (64, [])
    assert "usage: scripts/cluster.sh up kind|k3d" in said
