import importlib
import sys
from types import SimpleNamespace

import pytest
import yaml

from citeflow import steps

VERBS = ("download", "preprocess", "train", "evaluate", "publish")


@pytest.fixture
def component(checkout, monkeypatch):
    """Loads a component of the checkout."""
    monkeypatch.syspath_prepend(str(checkout))
    for name in [name for name in sys.modules if name.partition(".")[0] == "components"]:
        monkeypatch.delitem(sys.modules, name)
    return lambda verb: getattr(importlib.import_module(f"components.{verb}.component"), verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_component_hands_everything_to_the_step_of_its_name(component, monkeypatch, verb):
    handed = {}

    def step(*args, **kwargs):
        handed["values"] = {id(value) for value in (*args, *kwargs.values())}
        return "made"

    monkeypatch.setattr(steps, verb, step)
    function = component(verb).python_func
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    given = {name: SimpleNamespace() for name in names}
    assert function(**given) == (None if verb == "publish" else "made")
    assert handed["values"] == {id(value) for value in given.values()}


@pytest.mark.parametrize("verb", VERBS)
def test_every_input_of_a_component_is_described(checkout, verb):
    spec = next(yaml.safe_load_all((checkout / "components" / verb / "component.yaml").read_text()))
    inputs = spec["components"][f"comp-{verb}"]["inputDefinitions"]
    for kind in inputs.values():
        for name, definition in kind.items():
            assert definition.get("description"), name


def test_the_image_is_that_of_this_version(component):
    from citeflow import __version__

    images = {component(verb).component_spec.implementation.container.image for verb in VERBS}
    assert len(images) == 1
    assert f":{__version__}-" in images.pop()
