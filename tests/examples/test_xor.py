"""The XOR example, from the compiled pipeline that is uploaded to Kubeflow."""

import importlib.util
import subprocess
import sys

import pytest
from kfp import components


@pytest.fixture(scope="module")
def folder(checkout):
    return checkout / "examples" / "xor"


def test_pipeline_yaml_is_what_its_source_compiles_to(folder, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("xor_pipeline", folder / "pipeline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "COMPILED", tmp_path / "pipeline.yaml")
    module.compile_pipeline()
    committed = (folder / "pipeline.yaml").read_text()
    assert (tmp_path / "pipeline.yaml").read_text() == committed
    assert components.load_component_from_text(committed).name == "xor"


def test_run_reproduces_the_known_result(folder, tmp_path):
    command = [sys.executable, folder / "run.py", "epochs=15", "test_points=500"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as known" in done.stdout
    assert list(tmp_path.glob("xor-artifacts/xor-*/plot-points/page"))
