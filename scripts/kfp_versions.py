"""Check the compiled files against other versions of Kubeflow Pipelines: `make versions`.

Every SDK of SDKS must compile the committed bytes. Every version of SERVERS must know each field of
the compiled files: a server refuses a pipeline with a field that it does not know. The packages of
a version are installed without their dependencies, in a folder before this environment's.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SDKS = ("2.17.0", "2.17.3")
"""All of 2.17 that were published by November 2026: there is no 2.17.1 and no 2.17.2."""

SERVERS = ("2.16.0", "2.16.1", "2.17.3")
PACKAGES = ("kfp", "kfp-kubernetes", "kfp-pipeline-spec", "kfp-server-api")

COMPILE = "from citeflow.cli.main import main; raise SystemExit(main(['compile', '--check']))"

PARSE = """
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2 as spec

for name in sys.argv[1:]:
    pipeline, *platforms = yaml.safe_load_all(Path(name).read_text())
    json_format.ParseDict(pipeline, spec.PipelineSpec())
    for platform in platforms:
        json_format.ParseDict(platform, spec.PlatformSpec())
        deployment = platform["platforms"]["kubernetes"]["deploymentSpec"]
        for config in deployment["executors"].values():
            json_format.ParseDict(config, kubernetes.KubernetesExecutorConfig())
"""


def main() -> int:
    """Check all versions, print a line for each, and return 1 if one fails."""
    root = Path(__file__).resolve().parents[1]
    compiled = [*root.glob("components/*/component.yaml"), *root.glob("pipelines/*/pipeline.yaml")]
    failed = False
    with tempfile.TemporaryDirectory(prefix="citeflow-kfp-") as folder:
        for version in sorted({*SDKS, *SERVERS}):
            packages = Path(folder) / version
            _install(version, packages)
            if version in SDKS:
                failed |= not _holds(f"SDK {version} compiles the same", packages, COMPILE)
            if version in SERVERS:
                what = f"protos of {version} know every field"
                failed |= not _holds(what, packages, PARSE, *map(str, compiled))
    return int(failed)


def _install(version: str, folder: Path) -> None:
    names = [f"{name}=={version}" for name in PACKAGES]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *names], check=True)


def _holds(what: str, packages: Path, code: str, *arguments: str) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(f"{'ok' if done.returncode == 0 else 'failed'}: {what}", flush=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
