import subprocess
import sys


def test_torchrun_ends_with_a_line_where_a_worker_failed():
    command = [sys.executable, "-m", "citeflow.training.torchrun", "--standalone", "--no-python"]
    ended = subprocess.run(
        [*command, "sh", "-c", "echo my own reason >&2; exit 3"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert "my own reason\n" in ended.stderr
    assert ended.stderr.endswith("train a worker has failed rank=0 exit_code=3\n")
    assert "Traceback" not in ended.stderr
