"""The form of a run: what it offers, and what nobody may give."""

import pytest

from citeflow.errors import ConfigError
from citeflow.platform import forms
from citeflow.platform.schema import Submission


@pytest.mark.parametrize("task", ["citation", "images"])
def test_form_offers_the_settings_of_a_task_with_words_for_labels(task):
    fields = {field.name: field for field in forms.form(task, max_workers=2).fields}
    assert fields["train.lr"].label == "learning rate"
    assert set(forms.FIRST[task]) <= set(fields)


@pytest.mark.parametrize("task", ["citation", "images"])
@pytest.mark.parametrize("name", ["model.code", "model.weights", "sandbox.memory_gib"])
def test_files_of_the_server_and_code_are_no_settings_of_a_run(task, name):
    assert name not in {field.name for field in forms.form(task, max_workers=2).fields}
    with pytest.raises(ConfigError, match=f"no setting of a run here: {name}"):
        forms.read_settings(task, "default", {name: "/etc/passwd"})
    assert forms.read_settings(task, "default", {"train.minutes": 1}).to_dict()["train"]["minutes"]


@pytest.mark.parametrize("task", ["citation", "images"])
def test_presets_say_what_they_are_and_which_settings_they_change(task):
    form = forms.form(task, max_workers=2)
    fields = {field.name for field in form.fields}
    for preset in form.presets:
        assert preset.help
        assert set(preset.settings) <= fields


def test_given_settings_are_those_of_the_preset_too():
    wanted = Submission(dataset="synthetic", preset="board", settings={"train.epochs": 2.0})
    given = forms.given_settings(wanted)
    assert (given["model.dropout"], given["train.epochs"]) == (0.0, 2.0)
    again = forms.read_settings("citation", "default", given)
    assert again == forms.read_settings("citation", "board", wanted.settings)
