import subprocess
import sys

FAILING = "def main():\n    print('my own reason', flush=True)\n    raise SystemExit(3)\n"


def test_torchrun_ends_with_a_line_where_a_worker_failed(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    command = [sys.executable, "-m", "citeflow.training.torchrun", "--standalone", "-m", "failing"]
    ended = subprocess.run(
        [*command, str(tmp_path / "job.json")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == "my own reason\n"
    assert ended.stderr.endswith("train a worker has failed rank=0 exit_code=3\n")
    assert "Traceback" not in ended.stderr
