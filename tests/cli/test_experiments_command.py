"""Experiments: what the commands hand to their pipelines."""

import yaml

from citeflow import files
from citeflow.cli import experiments
from citeflow.cli.local_run import LocalRun
from citeflow.tasks import load_settings
from citeflow.training import sandbox


def test_compare_brings_the_code_of_its_models(tmp_path, monkeypatch):
    monkeypatch.setenv(sandbox.TRUST_VARIABLE, "1")
    file = tmp_path / "encoder.py"
    file.write_text("def build(settings): ...")
    local = LocalRun(dataset="synthetic", run_name="c", verbose=False, data_root=tmp_path / "data")
    models = f"{{sage: {{}}, own: {{model: {{code: {file}, predictor: dot}}}}}}"
    brought = yaml.safe_load(experiments._with_digests(models, load_settings(), local))
    digest = files.sha256_of_file(file)
    assert brought == {"sage": {}, "own": {"model": {"code": digest, "predictor": "dot"}}}
    assert (tmp_path / "data" / "own" / f"{digest}.py").is_file()
    plain = "{sage: {}, dot: {model: {predictor: dot}}}"
    assert experiments._with_digests(plain, load_settings(), local) == plain
