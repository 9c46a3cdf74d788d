import inspect
import tomllib

import pytest
import yaml

from citeflow.kubeflow.params import RunParams
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubeflow.submit import typed_parameters


def test_every_pipeline_is_packaged(checkout):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    packaged = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for name, pipeline in PIPELINES.items():
        path = pipeline.compiled().relative_to(checkout).as_posix()
        assert packaged[path] == f"citeflow/compiled/{name}.yaml"
    assert len(packaged) == len(PIPELINES)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=list(PIPELINES))
def test_every_pipeline_accepts_its_defaults(pipeline):
    pipeline.validate(typed_parameters(pipeline.compiled().read_text(), {}))


def test_run_parameters_are_offered_and_checked():
    from citeflow.stages import download

    spec = next(yaml.safe_load_all(PIPELINES["citation"].compiled().read_text()))
    # The task is settled by the pipeline, or by the settings.
    own = {*RunParams.model_fields} - {"task"}
    assert own <= {*spec["root"]["inputDefinitions"]["parameters"]}
    assert set(RunParams.model_fields) <= set(inspect.signature(download).parameters)
