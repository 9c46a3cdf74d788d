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
    """The names that a step gives to what it builds."""
    return [
        after
        for word, after in zip(step["args"], step["args"][1:], strict=False)
        if word == "--tag"
    ]


def test_every_substitution_that_is_used_is_defined_and_every_defined_one_is_used(text, build):
    without_comments = re.sub(r"(?m)(^|\s)#.*$", "", text)
    used = set(re.findall(r"(?<!\$)\$\{?([A-Z_][A-Z_0-9]*)", without_comments))
    assert used == {*build["substitutions"], *(used & BUILT_IN)}
    assert all(name.startswith("_") for name in build["substitutions"])


def test_a_substitution_that_is_made_of_another_is_asked_for(build):
    assert build["substitutions"]["_TAG"] == "$SHORT_SHA"
    assert build["options"]["dynamicSubstitutions"] is True


def test_every_image_that_is_built_is_pushed_by_cloud_build_itself(build, steps):
    built = [tag for step in steps.values() for tag in tags(step)]
    assert len(built) == 2 * len(IMAGES)
    assert sorted(built) == sorted(build["images"])
    assert not [image for image in build["images"] if image.endswith(":latest")]


def test_images_are_told_apart_by_the_tag_of_the_build(build):
    released = [image for image in build["images"] if not image.endswith(":cache")]
    assert [image.rsplit("/", 1)[1] for image in released] == [
        f"citeflow-{name}:${{_TAG}}-python3.11" for name in IMAGES
    ]
    assert all(
        image.startswith("${_REGION}-docker.pkg.dev/${PROJECT_ID}/${_REPO}/")
        for image in build["images"]
    )


def test_each_build_starts_from_the_cache_of_the_one_before(steps):
    for image in IMAGES:
        args = steps[f"build-{image}"]["args"]
        assert args[args.index("--cache-from") + 1] in tags(steps[f"build-{image}"])
        assert "--build-arg=BUILDKIT_INLINE_CACHE=1" in args
        assert {"--file=docker/Dockerfile", f"--target={image}"} <= set(args)


def test_build_arguments_exist_in_the_dockerfile(steps, checkout):
    for image in IMAGES:
        known = {
            each.text.partition("=")[0] for each in of_image(checkout, image) if each.name == "ARG"
        }
        names = re.findall(r"--build-arg=(\w+)=", " ".join(steps[f"build-{image}"]["args"]))
        assert set(names) - known == {"BUILDKIT_INLINE_CACHE"}


def test_steps_wait_for_steps_that_come_before_them(build):
    known = set()
    for step in build["steps"]:
        assert set(step["waitFor"]) <= known | {"-"}
        known.add(step["id"])


def test_nothing_is_published_that_was_not_checked_and_tried(steps):
    def before(name):
        waits = [wait for wait in steps[name]["waitFor"] if wait != "-"]
        return {*waits, *(earlier for wait in waits for earlier in before(wait))}

    assert {"check", "build-train", "build-step", "test", "push"} <= before("upload")
    assert {"check", "test"} <= before("push")
    assert all({"check", "test"} <= before(f"sbom-{image}") for image in IMAGES)


def test_the_pipelines_name_the_images_of_this_build(build, steps):
    script, train, step = steps["upload"]["args"][1], *steps["upload"]["args"][3:]
    assert "--upload-only" in script
    assert '--pipeline citation --train-image "$$1" --step-image "$$2"' in script
    assert {train, step} <= set(build["images"])
    assert steps["push"]["args"][3:5] == [train, step]
    assert steps["upload"]["name"] == step


def test_options_of_the_upload_are_those_of_the_command(steps):
    options = set(re.findall(r"--[a-z-]+", steps["upload"]["args"][1]))
    known = {name for option in submit.params for name in option.opts}
    assert len(options) == 6
    assert options <= known


def test_scripts_read_substitutions_from_their_environment_so_that_no_value_is_run(steps):
    scripts = [step["args"][1] for step in steps.values() if step["args"][0] == "-euc"]
    assert len(scripts) == 3
    assert not [script for script in scripts if re.search(r"(?<!\$)\$\{?_", script)]
    for step in steps.values():
        variables = {line.partition("=")[0] for line in step.get("env", [])}
        assert set(re.findall(r"\$\$([A-Z_]+)", str(step["args"]))) <= variables


def test_scripts_are_bash(steps):
    for step in steps.values():
        if step["args"][0] == "-euc":
            script = step["args"][1].replace("$$", "$")
            assert subprocess.run(["bash", "-n", "-c", script], timeout=10).returncode == 0


def test_builders_are_pinned_by_digest(steps):
    builders = {step["name"] for step in steps.values()} - {steps["upload"]["name"]}
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", name) for name in builders)


def test_the_check_runs_on_the_base_of_the_images(steps, checkout):
    assert f"ARG PYTHON={steps['check']['name']}\n" in file(checkout).read_text()


def test_provenance_is_asked_for_and_an_sbom_of_each_image_is_kept(build, steps):
    assert build["options"]["requestedVerifyOption"] == "VERIFIED"
    assert build["artifacts"]["objects"]["paths"] == ["sbom/*.spdx.json"]
    for image in IMAGES:
        assert (
            f"--output=spdx-json=/workspace/sbom/{image}.spdx.json"
            in steps[f"sbom-{image}"]["args"]
        )


def test_the_build_has_an_account_of_its_own_an_end_and_logs_without_a_bucket(build):
    assert build["serviceAccount"].startswith("projects/${PROJECT_ID}/serviceAccounts/${_BUILDER}@")
    assert build["timeout"] == "3600s"
    assert build["options"]["logging"] == "CLOUD_LOGGING_ONLY"
    assert build["options"]["machineType"]


def test_there_is_no_secret_and_no_index_in_it(text, build):
    assert not re.search(r"password\s*[:=]|token|BEGIN|AKIA|://(?!\$\{_BUCKET\})", text)
    assert build["substitutions"]["_PIP_EXTRA_INDEX_URL"] == ""
    assert "availableSecrets" not in build
