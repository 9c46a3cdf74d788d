import re

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as oracle

from citeflow import files
from citeflow.artifacts import LocalArtifact
from citeflow.cli.main import main
from citeflow.errors import ConfigError
from citeflow.experiments.comparison_page import render_html
from citeflow.experiments.significance import rank_models, to_csv
from citeflow.experiments.trials import Outcome, comparison_trials
from citeflow.report import Curves
from citeflow.reporting.event_files import read_scalars
from citeflow.tasks import get_task, load_settings, task_of
from citeflow.tasks.images.architectures import ARCHITECTURES
from citeflow.tasks.images.evaluator import class_scores, confusion, scores, wilson
from citeflow.tasks.images.report import ImageReport


def test_digits_are_recognized(classified):
    report = ImageReport.read(classified.report)
    assert report.test.accuracy >= 0.97
    assert report.test.accuracy > max(report.baselines.values()) > 0.8
    assert report.baselines["most frequent class"] < 0.2
    assert report.train.workers == 1
    assert {"download", "preprocess", "train", "evaluate"} <= report.stages.keys()


def test_predict_refuses_the_model(classified, capsys):
    command = ["predict", "--paper", "3", "digits", "--data-root", str(classified.data_root)]
    assert main(command) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert f"error: not a model of citations: {classified.model}\nhint: " in error


def test_figures_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    label = random.integers(0, 4, 300)
    logit = random.normal(size=(300, 5)) + 2 * np.eye(5)[label]  # nothing is of the fifth class
    logit_NK, label_N = torch.from_numpy(logit), torch.from_numpy(label)
    found = scores(logit_NK, label_N)
    predicted = logit.argmax(axis=1)
    assert found.accuracy == pytest.approx(oracle.accuracy_score(label, predicted))
    probability = logit_NK.softmax(1).numpy()
    assert found.loss == pytest.approx(oracle.log_loss(label, probability, labels=range(5)))
    confusion_KK = confusion(logit_NK, label_N, 5)
    np.testing.assert_array_equal(
        confusion_KK, oracle.confusion_matrix(label, predicted, labels=range(5))
    )
    expected = oracle.precision_recall_fscore_support(
        label, predicted, labels=range(5), zero_division=0
    )
    for index, each in enumerate(class_scores(confusion_KK, tuple("abcde"))):
        figures = (each.precision, each.recall, each.f1, each.num_images)
        assert figures == pytest.approx([column[index] for column in expected])
    assert found.macro_f1 == pytest.approx(np.mean(expected[2]))


@pytest.mark.parametrize(("right", "num"), [(81, 90), (5, 5), (0, 7)])
def test_interval_is_scipys(right, num):
    expected = binomtest(right, num).proportion_ci(method="wilson")
    assert wilson(right, num) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_page_shows_pictures_and_names(classified):
    page = (classified.published / "report.html").read_text()
    report = ImageReport.read(classified.published)
    assert f"{report.test.accuracy:.4f}" in page
    assert "Confusion matrix" in page
    assert "img-src data:" in page
    pictures = re.findall(r'<image [^>]*href="data:image/png;base64,', page)
    assert len(pictures) == 1 + min(report.num_errors, 24)
    assert "publish" in report.stages
    assert files.verify(classified.published / "model", "TrainedModel")


def test_tensorboard_has_curves_and_result(classified):
    def values(tag):
        paths = sorted(classified.logs.glob("events*"))
        return [scalar.value for path in paths for scalar in read_scalars(path, tag)]

    report = ImageReport.read(classified.report)
    assert values("test/accuracy") == pytest.approx([report.test.accuracy])
    assert len(values("valid/accuracy")) == len(Curves.read(classified.report).evaluations)
    assert values("valid/loss")[-1] < values("valid/loss")[0]


def test_artifacts_name_their_task_and_results(classified):
    task = task_of(classified.model, "TrainedModel")
    assert task is task_of(classified.report, "EvalReport") is get_task("images")
    results = task.results(classified.report)
    assert len(results.metrics()) <= 10
    artifact = LocalArtifact(path=str(classified.folder / "classification"))
    results.log_curves(artifact)
    preview = files.read_json(classified.folder / "classification")["confusion_matrix"]
    assert preview["categories"] == [str(digit) for digit in range(10)]
    assert sum(map(sum, preview["matrix"])) == ImageReport.read(classified.report).test.num_images
    assert "Test accuracy" in results.table()
    assert "| Accuracy |" in results.summary()


def test_evaluate_refuses_other_images(classified, digits):
    task = get_task("images")
    raw = task.download("digits", data_root=digits.data_root, settings=digits.config)
    other = load_settings("images", overrides=["data.seed=5"])
    images = task.preprocess(raw, data_root=digits.data_root, settings=other.to_dict())
    with pytest.raises(ConfigError, match="trained on other images"):
        task.evaluate(classified.model, data=images, run=classified)


def test_memory_is_that_of_process_and_batch(digits):
    task = get_task("images")
    settings = digits.config.to_dict()
    one, two = (task.memory_needed(digits.images, settings, workers) for workers in (1, 2))
    assert 2**28 < one < two < 2**31


def test_models_are_compared_by_accuracy(classified):
    report = ImageReport.read(classified.report)
    worse = report.model_copy(update={"valid": report.valid.model_copy(update={"accuracy": 0.5})})
    curves = Curves.read(classified.report)
    ranked = rank_models(
        [
            Outcome(name="plain-seed-0", report=worse, curves=curves),
            Outcome(name="resnet-seed-0", report=report, curves=curves),
        ]
    )
    assert [each.name for each in ranked] == ["resnet", "plain"]
    assert to_csv(ranked).startswith("model,seed,valid_accuracy,test_accuracy,macro_f1,seconds\n")
    assert "Validation accuracy over epochs" in render_html("digits", ranked)


def test_default_models_are_all_architectures():
    planned = comparison_trials("task: images", "c", get_task("images").models, [0, 1], 2)
    assert {trial.config.model.architecture for trial in planned} == ARCHITECTURES.keys()
    assert len(planned) == 2 * len(ARCHITECTURES)
