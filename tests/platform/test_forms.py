"""The form of a run: what it offers, and what nobody may give."""

import pytest

from citeflow.errors import ConfigError
from citeflow.platform import forms


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
