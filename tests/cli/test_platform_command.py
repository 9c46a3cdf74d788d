"""`citeflow platform` and `citeflow user`."""

import json
import signal
import subprocess
import sys

import pytest
import requests

from citeflow.cli.main import main

WAIT_S = 300


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    return code, capsys.readouterr()


def test_user_add_prints_a_link_and_list_the_accounts(tmp_path, capsys):
    code, added = run(capsys, "user", "add", "ann", "--size", "M", "--data", tmp_path)
    assert code == 0
    link = json.loads(added.out)["link"]
    assert link.startswith("http://127.0.0.1:8080/setup?token=")
    run(capsys, "user", "add", "root", "--admin", "--data", tmp_path)
    code, listed = run(capsys, "user", "list", "--data", tmp_path)
    accounts = [json.loads(line) for line in listed.out.splitlines()]
    assert [(each["name"], each["role"], each["size"]) for each in accounts] == [
        ("ann", "user", "M"),
        ("root", "admin", None),
    ]
    assert not any(each["has_password"] for each in accounts)


def test_only_admin_is_neither_suspended_nor_removed(tmp_path, capsys):
    run(capsys, "user", "add", "root", "--admin", "--size", "S", "--data", tmp_path)
    for command in ("suspend", "rm"):
        code, said = run(capsys, "user", command, "root", "--data", tmp_path)
        assert (code, said.err) == (64, "error: root is the only admin\n")
    assert (tmp_path / "users" / "root").is_dir()
    code, listed = run(capsys, "user", "list", "--data", tmp_path)
    assert not json.loads(listed.out)["suspended"]


def test_user_with_a_bad_name_is_one_line(tmp_path, capsys):
    code, said = run(capsys, "user", "add", "../ann", "--data", tmp_path)
    assert code == 64
    assert said.err.startswith("error: run name: ../ann\nhint: ")


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "0.0.0.0"),
        ("--url", "citeflow.lab.org"),
        ("--url", "https://lab.org/citeflow"),
        ("--database", "nonsense"),
    ],
)
def test_platform_refuses_what_nobody_could_reach(tmp_path, capsys, options):
    code, said = run(capsys, "platform", "--data", tmp_path, "--port", "0", *options)
    assert code == 64
    assert said.err.startswith("error: not ")


def test_platform_opens_the_first_account_and_ends_with_a_signal(tmp_path):
    command = [sys.executable, "-P", "-m", "citeflow", "platform"]
    command += ["--data", str(tmp_path), "--port", "0"]
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server:
        try:
            facts = json.loads(server.stdout.readline())
            api = f"{facts['url']}/api/v1"
            body = {
                "token": facts["setup"].partition("token=")[2],
                "name": "root",
                "password": "0123456789",
            }
            headers = {"Origin": facts["url"]}
            made = requests.post(f"{api}/setup", json=body, headers=headers, timeout=WAIT_S)
            assert (made.status_code, made.json()["role"]) == (201, "admin")
            assert requests.get(f"{facts['url']}/health", timeout=WAIT_S).json() == {"live": True}
            server.send_signal(signal.SIGTERM)
            assert server.wait(WAIT_S) == 0
        finally:
            server.kill()
    assert (tmp_path / "log").read_text().endswith("platform ended\n")
