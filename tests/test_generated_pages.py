import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "script", ["settings_reference", "component_docs", "monitoring", "openapi", "web_page"]
)
def test_generated_files_are_fresh(checkout, script):
    command = [sys.executable, checkout / "scripts" / f"{script}.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
