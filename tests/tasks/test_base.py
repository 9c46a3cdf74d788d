"""The seam: training knows tasks by their protocol, and no task by its content."""

import ast

import pytest

from citeflow.errors import ConfigError
from citeflow.tasks import TASKS, get_task

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
