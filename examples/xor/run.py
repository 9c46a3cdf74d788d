"""Run the compiled XOR pipeline on this machine: `python examples/xor/run.py [NAME=VALUE ...]`.

The exit code is 1 where the known result did not come out.
"""

import sys
from pathlib import Path

import yaml
from kfp import components, local

COMPILED = Path(__file__).with_name("pipeline.yaml")


def main(arguments: list[str]) -> int:
    """Run the pipeline with some of its parameters; return the exit code."""
    parameters = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        parameters[name] = yaml.safe_load(value)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="./xor-artifacts")
    run = components.load_component_from_file(str(COMPILED))(**parameters)
    print(run.outputs["verdict"])
    return 0 if run.outputs["is_reproduced"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
