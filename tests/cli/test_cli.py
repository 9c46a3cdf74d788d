import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sample_run import sample_report

from citeflow import config, files, stages
from citeflow.cli import main, options
from citeflow.errors import CiteflowError, TrainingError
from citeflow.kubeflow import local_runner

REPORT = sample_report().to_json()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every command starts in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CITEFLOW_DATA_ROOT", raising=False)


@pytest.fixture
def ran(monkeypatch):
    """The arguments that `run` gave to the pipeline, which is replaced by a quick one."""
    calls = []

    def run(arguments, *, scratch, name, verbose):
        calls.append(arguments)
        files.write_json(Path(arguments["out_dir"]) / "report.json", REPORT)

    monkeypatch.setattr(local_runner, "run", run)
    return calls


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        ([], 64, "COMMAND"),
        (["fly"], 64, "fly"),
        (["run", "--wokers", "2"], 64, "--wokers"),
        (["run", "--workers", "0"], 64, "at least 1"),
        (["run", "--workers", "two"], 64, "at least 1"),
        (["run", "--set", "train.epoch=3"], 64, "did you mean train.epochs"),
        (["run", "--set", "train.epochs=many"], 64, "train.epochs"),
        (["run", "--preset", "best"], 64, "best"),
        (["run", "--config", "none.yaml"], 66, "none.yaml"),
        (["run", "--run-name", "My Run"], 64, "My Run"),
        (["run", "--dataset", "syntetic"], 66, "syntetic"),
        (["download", "nowhere"], 66, "nowhere"),
        (["preprocess", "nowhere"], 66, "nowhere"),
        (["train", "nowhere", "--run-name", "a"], 66, "nowhere"),
        (["train", "nowhere"], 64, "--run-name"),
        (["evaluate", "nowhere", "--graph", "nowhere"], 66, "nowhere"),
        (["publish", "nowhere", "--model", "nowhere", "--out", "out"], 66, "nowhere"),
        (["predict", "--run", "nowhere", "--paper", "7"], 66, "nowhere"),
        (["predict", "--run", "nowhere", "--paper", "7", "-k", "-1"], 64, "at least 1"),
    ],
)
def test_a_wrong_call_ends_in_one_line_a_hint_and_its_exit_code(argv, code, told, capsys, tmp_path):
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n(hint: .+\n)?", err)
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    codes = set(re.findall(r"^ +(\d+)  ", capsys.readouterr().out, re.MULTILINE))
    assert codes == {
        str(kind.exit_code) for kind in [CiteflowError, *CiteflowError.__subclasses__()]
    } | {
        "0",
        "130",
        "141",
    }


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            70,
            "error: No space left on device: /data/x\n",
        ),
        (OSError("odd"), 70, "error: OSError: odd\n"),
        (
            ModuleNotFoundError("No module", name="torch.nn"),
            69,
            "error: package is not installed: torch.nn\nhint: .+\n",
        ),
    ],
)
def test_a_failure_below_citeflow_is_told_in_one_line(monkeypatch, capsys, raised, code, told):
    def download(*args, **kwargs):
        raise raised

    monkeypatch.setattr(stages, "download", download)
    assert main(["download", "synthetic"]) == code
    assert re.fullmatch(told, capsys.readouterr().err)


@pytest.mark.parametrize(
    "raised", [KeyError("x"), ModuleNotFoundError("No module", name="citeflow.gone")]
)
def test_a_bug_keeps_its_traceback(monkeypatch, raised):
    def download(*args, **kwargs):
        raise raised

    monkeypatch.setattr(stages, "download", download)
    with pytest.raises(type(raised)):
        main(["download", "synthetic"])


def test_a_reader_that_went_away_ends_it_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from citeflow.cli import main; sys.exit(main(['settings']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_settings_are_printed_as_the_yaml_that_config_takes(capsys, tmp_path):
    assert main(["settings", "--preset", "seed", "--set", "train.lr=0.5"]) == 0
    (tmp_path / "settings.yaml").write_text(capsys.readouterr().out)
    assert main(["settings", "--config", "settings.yaml"]) == 0
    assert config.from_yaml(capsys.readouterr().out) == config.load(
        preset="seed", overrides=["train.lr=0.5"]
    )


def test_run_hands_the_pipeline_settled_settings_and_absolute_paths(ran, capsys, tmp_path):
    (tmp_path / "cora").mkdir()
    argv = ["run", "--dataset", "cora", "--out", "out", "--workers", "3", "--set", "train.epochs=3"]
    assert main([*argv, "--run-name", "r1", "--data-root", "root"]) == 0
    (arguments,) = ran
    assert (
        yaml.safe_load(arguments.pop("settings"))
        == config.load(overrides=["train.epochs=3"]).to_dict()
    )
    assert arguments == {
        "dataset": str(tmp_path / "cora"),
        "workers": 3,
        "run_name": "r1",
        "out_dir": str(tmp_path / "out"),
        "data_root": str(tmp_path / "root"),
    }


def test_run_checks_its_folders_before_the_pipeline_starts(ran, capsys, tmp_path):
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "file").touch()
    for options_ in (["--out", "out"], ["--out", "file"], ["--data-root", "file"]):
        assert main(["run", *options_]) == 64
        assert re.fullmatch(r"error: .+\nhint: .+\n", capsys.readouterr().err)
    assert ran == []


def test_run_gives_only_parameters_that_the_compiled_pipeline_has(ran, checkout):
    assert main(["run"]) == 0
    spec = next(
        yaml.safe_load_all((checkout / "pipelines" / "citation" / "pipeline.yaml").read_text())
    )
    assert set(ran[0]) <= set(spec["root"]["inputDefinitions"]["parameters"])


def test_no_secret_of_a_url_is_logged(ran, capsys):
    url = "https://me:hush@example.org/cora.zip?token=hush"
    assert main(["run", "--dataset", url]) == 0
    assert ran[0]["dataset"] == url
    assert "cora" in ran[0]["run_name"]
    assert "hush" not in ran[0]["run_name"] + capsys.readouterr().err


def test_run_ends_with_a_table_for_people_and_one_object_for_programs(ran, capsys, tmp_path):
    assert main(["run", "--out", "out", "--run-name", "r1"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["report"] == str(tmp_path / "out" / "report.json")
    assert told["logs"] == str(tmp_path / "citeflow-data" / "logs" / "r1")
    assert told["test"]["mrr"] == 0.7518
    assert "0.7518" in err
    assert "Adamic-Adar" in err


def test_the_data_root_comes_from_the_option_or_the_environment_or_lies_here(
    ran, monkeypatch, tmp_path
):
    main(["run"])
    monkeypatch.setenv("CITEFLOW_DATA_ROOT", str(tmp_path / "of-environment"))
    main(["run"])
    main(["run", "--data-root", "of-option"])
    assert [arguments["data_root"] for arguments in ran] == [
        str(tmp_path / name) for name in ("citeflow-data", "of-environment", "of-option")
    ]


def test_a_run_that_broke_off_says_how_to_go_on(monkeypatch, capsys):
    def run(*args, **kwargs):
        raise TrainingError("a worker died")

    monkeypatch.setattr(local_runner, "run", run)
    assert main(["run", "--run-name", "r1"]) == 75
    assert "--run-name r1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "dataset", ["synthetic", "ogbl-citation2", "https://example.org/a.zip", "file:///a.zip"]
)
def test_names_and_addresses_of_datasets_stay_as_they_are(dataset):
    assert options.dataset(dataset) == dataset


def test_a_verb_prints_the_folder_the_digest_and_the_facts_of_what_it_made(
    monkeypatch, capsys, tmp_path
):
    def download(dataset, *, data_root, config):
        with files.new_directory(data_root / "raw" / "a1") as work:
            digest.append(
                files.write_manifest(work, "RawDataset", inputs={}, facts={"dataset": dataset})
            )
        return data_root / "raw" / "a1"

    digest = []
    monkeypatch.setattr(stages, "download", download)
    assert main(["download", "synthetic"]) == 0
    place = tmp_path / "citeflow-data" / "raw" / "a1"
    assert json.loads(capsys.readouterr().out) == {
        "path": str(place),
        "sha256": digest[0],
        "dataset": "synthetic",
    }
