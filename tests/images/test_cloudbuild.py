import itertools
import re
import subprocess

import pytest
import yaml
from dockerfiles import IMAGES, file, of_image

from citeflow.cli.submit import submit

BUILT_IN = {"PROJECT_ID", "SHORT_SHA", "COMMIT_SHA"}


@pytest.fixture(scope="module")
def text(checkout):
    return (checkout / "cloudbuild.yaml").read_text()


@pytest.fixture(scope="module")
def build(text):
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def steps(build):
    return {step["id"]: step for step in build["steps"]}


def tags(step):
    """Return the names of the image that a step builds."""
    words = step["args"]
    return [after for word, after in itertools.pairwise(words) if word == "--tag"]


def test_substitutions_and_builders_are_known(text, build, steps, checkout):
    used = set(re.findall(r"(?<!\$)\$\{?([A-Z_][A-Z_0-9]*)", re.sub(r"(?m)(^|\s)#.*$", "", text)))
    assert used == {*build["substitutions"], *(used & BUILT_IN)}
    assert build["options"]["dynamicSubstitutions"] is True  # _TAG is made of another
    builders = {step["name"] for step in steps.values()} - {steps["upload"]["name"]}
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", name) for name in builders)
    assert f"ARG PYTHON={steps['check']['name']}\n" in file(checkout).read_text()
    built = [tag for step in steps.values() for tag in tags(step)]
    assert sorted(built) == sorted(build["images"])


@pytest.mark.parametrize("image", IMAGES)
def test_build_uses_the_cache_and_arguments_of_the_dockerfile(steps, checkout, image):
    args = steps[f"build-{image}"]["args"]
    assert args[args.index("--cache-from") + 1] in tags(steps[f"build-{image}"])
    assert {"--file=docker/Dockerfile", f"--target={image}"} <= set(args)
    known = {
        each.text.partition("=")[0] for each in of_image(checkout, image) if each.name == "ARG"
    }
    names = re.findall(r"--build-arg=(\w+)=", " ".join(args))
    assert set(names) - known == {"BUILDKIT_INLINE_CACHE"}
    sbom = f"--output=spdx-json=/workspace/sbom/{image}.spdx.json"
    assert sbom in steps[f"sbom-{image}"]["args"]


def test_nothing_is_published_before_it_is_checked_and_tested(build, steps):
    known = set()
    for step in build["steps"]:
        assert set(step["waitFor"]) <= known | {"-"}
        known.add(step["id"])

    def before(name):
        waits = [wait for wait in steps[name]["waitFor"] if wait != "-"]
        return {*waits, *(earlier for wait in waits for earlier in before(wait))}

    assert {"check", "build-train", "build-step", "test", "push"} <= before("upload")
    assert {"check", "test"} <= before("push")
    assert all({"check", "test"} <= before(f"sbom-{image}") for image in IMAGES)


def test_pipeline_names_the_images_of_this_build(build, steps):
    script, (train, step) = steps["upload"]["args"][1], steps["upload"]["args"][3:]
    assert '--train-image "$$1" --step-image "$$2"' in script
    assert {train, step} <= set(build["images"])
    assert steps["push"]["args"][3:5] == [train, step]
    assert steps["upload"]["name"] == step
    options = set(re.findall(r"--[a-z-]+", script))
    known = {name for option in submit.params for name in option.opts}
    assert len(options) == 6
    assert options <= known


def test_scripts_are_bash_and_read_substitutions_from_their_environment(steps):
    for step in steps.values():
        variables = {line.partition("=")[0] for line in step.get("env", [])}
        assert set(re.findall(r"\$\$([A-Z_]+)", str(step["args"]))) <= variables
        if step["args"][0] == "-euc":
            assert not re.search(r"(?<!\$)\$\{?_", step["args"][1])
            script = step["args"][1].replace("$$", "$")
            assert subprocess.run(["bash", "-n", "-c", script], timeout=10).returncode == 0


def test_build_has_provenance_an_account_and_no_secret(text, build):
    assert build["options"]["requestedVerifyOption"] == "VERIFIED"
    assert build["serviceAccount"].startswith("projects/${PROJECT_ID}/serviceAccounts/${_BUILDER}@")
    assert build["options"]["logging"] == "CLOUD_LOGGING_ONLY"
    assert not re.search(r"password\s*[:=]|token|BEGIN|AKIA|://(?!\$\{_BUCKET\})", text)
    assert build["substitutions"]["_PIP_EXTRA_INDEX_URL"] == ""
    assert "availableSecrets" not in build
