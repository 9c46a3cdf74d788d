import importlib
import inspect
import sys
from types import SimpleNamespace

import pytest
import yaml

FUNCTIONS = {
    "download": "citeflow.stages",
    "preprocess": "citeflow.stages",
    "train": "citeflow.stages",
    "evaluate": "citeflow.stages",
    "publish": "citeflow.stages",
    "index": "citeflow.stages",
    "scaling_trials": "citeflow.experiments.scaling",
    "scaling_report": "citeflow.experiments.scaling",
    "comparison_trials": "citeflow.experiments.comparison",
    "comparison_report": "citeflow.experiments.comparison",
    "run_trials": "citeflow.experiments.running",
    "create_study": "citeflow.experiments.tuning",
    "train_trials": "citeflow.experiments.tuning",
    "tuning_report": "citeflow.experiments.tuning",
}


@pytest.fixture
def load(checkout, monkeypatch):
    """Loads a component of the checkout."""
    monkeypatch.syspath_prepend(str(checkout))
    for name in [name for name in sys.modules if name.partition(".")[0] == "components"]:
        monkeypatch.delitem(sys.modules, name)
    return lambda name: getattr(importlib.import_module(f"components.{name}.component"), name)


def test_functions_are_those_of_all_components(checkout):
    folders = {path.parent.name for path in checkout.glob("components/*/component.py")}
    assert folders == FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_component_passes_every_argument_to_the_function_of_its_name(load, monkeypatch, name):
    module = importlib.import_module(FUNCTIONS[name])
    accepted = inspect.signature(getattr(module, name))
    passed = {}

    def record(*args, **kwargs):
        bound = accepted.bind(*args, **kwargs)  # a TypeError where the two do not fit
        passed["values"] = {id(value) for value in bound.arguments.values()}
        return "made"

    monkeypatch.setattr(module, name, record)
    component = load(name).python_func
    arguments = {each: SimpleNamespace() for each in inspect.signature(component).parameters}
    component(**arguments)
    assert passed["values"] == {id(value) for value in arguments.values()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_component_describes_itself_and_its_parameters(checkout, name):
    spec = next(yaml.safe_load_all((checkout / "components" / name / "component.yaml").read_text()))
    (component,) = spec["components"].values()
    inputs = component.get("inputDefinitions", {})
    for kind in ("parameters", "artifacts"):
        assert all(each.get("description") for each in inputs.get(kind, {}).values())
