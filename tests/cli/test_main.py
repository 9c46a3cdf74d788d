import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from sample_run import sample_report

from citeflow import config, files
from citeflow.cli.main import MODULES, citeflow, main
from citeflow.errors import CiteflowError, TrainingError
from citeflow.kubeflow import local_runner
from citeflow.kubeflow.pipelines import PIPELINES


@pytest.fixture
def ran(monkeypatch):
    """The arguments that `run` gave to the pipeline, which only writes a report."""
    calls = []

    def run_pipeline(pipeline, arguments, *, scratch, verbose):
        assert pipeline == PIPELINES["citation"].compiled()
        calls.append(arguments)
        files.write_json(Path(arguments["out_dir"]) / "report.json", sample_report().to_json())

    monkeypatch.setattr(local_runner, "run_pipeline", run_pipeline)
    return calls


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 64, "Missing command"),
        (["fly"], 64, "fly"),
        (["run", "--wokers", "2"], 64, "--workers"),
        (["run", "--work", "2"], 64, "No such option"),
        (["run", "--workers", "0"], 64, "x>=1"),
        (["run", "--set", "train.epoch=3"], 64, "did you mean train.epochs"),
        (["run", "--preset", "best"], 64, "seed"),
        (["run", "--config", "none.yaml"], 66, "none.yaml"),
        (["run", "--launcher", "trainjob"], 64, "trainjob"),
        (["run", "--ray-address", "auto"], 64, "with --launcher ray"),
        (["run", "--run-name", "My Run"], 64, "My Run"),
        (["run", "--task", "images"], 64, "not a dataset of the task images: synthetic"),
        (["run", "--dataset", "syntetic"], 66, "syntetic"),
        (["download", "nowhere"], 66, "nowhere"),
        (["preprocess", "nowhere"], 66, "nowhere"),
        (["train", "nowhere", "--run-name", "a"], 66, "nowhere"),
        (["train", "nowhere"], 64, "--run-name"),
        (["evaluate", "nowhere", "--graph", "nowhere"], 66, "nowhere"),
        (["publish", "nowhere", "--model", "nowhere", "--out", "out"], 66, "nowhere"),
        (["predict", "nowhere", "--paper", "7"], 66, "nowhere"),
        (["runs", "show", "first", "--open"], 64, "--open"),
        (["scaling", "--workers", "1;2"], 64, "such as 1,2,4"),
        (["compare", "--models", "none.yaml"], 66, "none.yaml"),
        (["tune", "--set", "train.lr=0", "--space", "{train.lrr: [1]}"], 64, "train.lr"),
    ],
)
def test_main_reports_a_wrong_call_in_two_lines(argv, code, message, capsys, tmp_path):
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n(hint: .+\n)?", err)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_help_lists_commands_and_exit_codes(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    kinds = [CiteflowError, *CiteflowError.__subclasses__()]
    codes = {kind.exit_code for kind in kinds} | {0, 130, 141}
    assert set(map(int, re.findall(r"^ +(\d+)  ", text, re.MULTILINE))) == codes
    assert set(re.findall(r"^  ([a-z]+)  ", text, re.MULTILINE)) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_command_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: citeflow {name} ")
    command = citeflow.get_command(None, name)
    for each in [command, *getattr(command, "commands", {}).values()]:
        missing = [
            option.opts[0]
            for option in each.params
            if isinstance(option, click.Option) and not (option.help or option.show_default)
        ]
        assert missing == []


def test_help_needs_neither_torch_nor_kfp():
    blocked = ("torch", "kfp", "kubernetes", "kubeflow", "sklearn", "matplotlib")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); "
    code += "from citeflow.cli.main import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space", "/data/x"), 70, "error: No space: /data/x\n"),
        (OSError("odd"), 70, "error: OSError: odd\n"),
        (ModuleNotFoundError("", name="torch.nn"), 72, "error: .+: torch.nn\nhint: .+\n"),
        (KeyboardInterrupt(), 130, "error: stopped by a signal: SIGINT\nhint: .+\n"),
        (SystemExit(75), 75, ""),
        (KeyError("x"), None, ""),
        (ModuleNotFoundError("No module", name="citeflow.gone"), None, ""),
    ],
)
def test_main_reports_a_failure_and_leaves_bugs(monkeypatch, capsys, raised, code, message):
    def emit(value):
        raise raised

    monkeypatch.setattr(config, "to_yaml", emit)
    if code is None:
        with pytest.raises(type(raised)):
            main(["settings"])
        return
    assert main(["settings"]) == code
    assert re.fullmatch(message, capsys.readouterr().err)


def test_main_ends_silently_when_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "citeflow", "settings"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_settings_prints_what_config_takes(capsys, tmp_path):
    assert main(["settings", "--preset", "seed", "--set", "train.lr=0.5"]) == 0
    (tmp_path / "settings.yaml").write_text(capsys.readouterr().out)
    assert main(["settings", "--config", "settings.yaml"]) == 0
    expected = config.load(preset="seed", overrides=["train.lr=0.5"])
    assert config.from_yaml(capsys.readouterr().out) == expected


def test_run_gives_the_pipeline_settings_and_absolute_paths(ran, capsys, tmp_path):
    (tmp_path / "cora").mkdir()
    argv = ["run", "--dataset", "cora", "--out", "out", "--workers", "3", "--set", "train.epochs=3"]
    assert main([*argv, "--run-name", "r1", "--data-root", "root"]) == 0
    (arguments,) = ran
    settings = yaml.safe_load(arguments.pop("settings"))
    assert settings == config.load(overrides=["train.epochs=3"]).to_dict()
    assert arguments == {
        "dataset": str(tmp_path / "cora"),
        "workers": 3,
        "launcher": "local",
        "run_name": "r1",
        "out_dir": str(tmp_path / "out"),
        "deploy": "",
        "data_root": str(tmp_path / "root"),
    }
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["report"] == str(tmp_path / "out" / "report.json")
    assert result["logs"] == str(tmp_path / "root" / "logs" / "r1")
    assert f"{result['test']['mrr']:.4f}" in err
    assert "Adamic-Adar" in err


@pytest.mark.parametrize("options", [["--out", "out"], ["--out", "file"], ["--data-root", "file"]])
def test_run_checks_its_folders_first(ran, options, capsys, tmp_path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert main(["run", *options]) == 64
    assert re.fullmatch(r"error: .+\nhint: .+\n", capsys.readouterr().err)
    assert ran == []


def test_data_root_is_option_or_environment_or_default(ran, monkeypatch, tmp_path, capsys):
    main(["run"])
    monkeypatch.setenv("CITEFLOW_DATA_ROOT", str(tmp_path / "of-environment"))
    main(["run"])
    url = "https://me:hush@example.org/cora.zip?token=hush"
    main(["run", "--data-root", "of-option", "--dataset", url])
    assert ran[2]["dataset"] == url
    assert "hush" not in ran[2]["run_name"] + capsys.readouterr().err
    names = ("citeflow-data", "of-environment", "of-option")
    expected = [str(tmp_path / name) for name in names]
    assert [arguments["data_root"] for arguments in ran] == expected


@pytest.mark.parametrize(
    ("raised", "code"), [(TrainingError("a worker died"), 75), (KeyboardInterrupt(), 130)]
)
def test_run_says_how_to_resume(monkeypatch, capsys, raised, code):
    def run_pipeline(*args, **kwargs):
        raise raised

    monkeypatch.setattr(local_runner, "run_pipeline", run_pipeline)
    assert main(["run", "--run-name", "r1"]) == code
    assert "--run-name r1" in capsys.readouterr().err


def test_experiments_give_pipelines_their_parameters(monkeypatch, capsys, tmp_path):
    calls = {}

    def run_pipeline(pipeline, arguments, *, scratch, verbose):
        calls[pipeline.parent.name] = arguments
        for stem in ("scaling", "comparison"):
            files.write_text(Path(arguments["out_dir"]) / f"{stem}.md", f"table of {stem}")

    monkeypatch.setattr(local_runner, "run_pipeline", run_pipeline)
    common = ["--out", "out", "--run-name", "e1", "--set", "train.lr=0.5"]
    assert main(["scaling", "--workers", "1,3", *common]) == 0
    assert main(["compare", "--seeds", "4", *common]) == 0
    out, err = capsys.readouterr()
    assert (calls["scaling"]["workers"], calls["scaling"]["epochs"]) == ([1, 3], [10])
    assert (calls["compare"]["seeds"], calls["compare"]["workers"]) == ([4], 2)
    assert "structural" in calls["compare"]["models"]
    assert all("lr: 0.5" in each["settings"] for each in calls.values())
    pages = [json.loads(line)["page"] for line in out.splitlines()]
    assert pages == [str(tmp_path / "out" / f"{stem}.html") for stem in ("scaling", "comparison")]
    assert "table of scaling" in err
