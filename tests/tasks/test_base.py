"""The seam: training knows tasks by their protocol, and no task by its content."""

import ast

import pytest

from citeflow import config
from citeflow.errors import ConfigError
from citeflow.tasks import TASKS, get_task, load_settings

CONTENT = ("data", "graph", "models", "sampling", "evaluation")


@pytest.mark.parametrize("module", ["trainer", "worker", "launch", "distributed", "checkpoint"])
def test_training_imports_nothing_of_a_task(checkout, module):
    tree = ast.parse((checkout / "src/citeflow/training" / f"{module}.py").read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.split(".")[1:2] and name.split(".")[1] in CONTENT]


def test_get_task_names_the_choices():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
    with pytest.raises(ConfigError, match="unknown task: xor") as caught:
        get_task("xor")
    assert "citation" in caught.value.hint


def test_citation_task_knows_the_memory_of_its_graph(prepared):
    settings = prepared.config.to_dict()
    assert get_task("citation").memory_needed(prepared.graph, settings, 2) > 2**28


def test_settings_name_their_task():
    images = load_settings("images", overrides=["train.epochs=3"])
    text = config.to_yaml(images)
    assert text.startswith("task: images\n")
    assert load_settings(text=text) == load_settings("images", text=text) == images
    assert config.changed(images, {"model": {"channels": 8}}).model.channels == 8


def test_settings_without_a_task_are_those_of_citations():
    assert load_settings(text="{train: {lr: 0.5}}") == config.load(overrides=["train.lr=0.5"])
    assert "task" not in config.to_yaml(load_settings())


def test_load_settings_refuses_another_task_and_its_settings():
    with pytest.raises(ConfigError, match="settings of another task: images"):
        load_settings("citation", text="task: images")
    with pytest.raises(ConfigError, match="unknown task: xor"):
        load_settings(text="task: xor")
    with pytest.raises(ConfigError, match=r"unknown setting: model.predictor"):
        load_settings("images", overrides=["model.predictor=dot"])
    with pytest.raises(ConfigError, match="unknown preset: seed"):
        load_settings("images", preset="seed")
