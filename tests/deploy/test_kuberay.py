"""deploy/kuberay.yaml against KubeRay's fields, and against the parsers of Ray and harness.

`kuberay-1.7.0-rayjob.json` has the field names and types of the RayJob CRD of KubeRay 1.7.0 (`spec` of version v1),
down to the levels that the file uses; below, everything is allowed.
"""

import copy
import json
import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml

from harness import cli

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(Path(__file__).with_name("kuberay-1.7.0-rayjob.json").read_text())
VOLUME, JOB = yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text())
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
IMAGE = (ROOT / "deploy" / "Containerfile").read_text()


def test_kuberay_knows_every_field():
    jsonschema.validate(JOB["spec"], SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(entryPoint="x"),
        lambda spec: spec["rayClusterSpec"].update(rayVersion=2.6),
        lambda spec: spec["rayClusterSpec"]["authOptions"].update(mode="tokens"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="2"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(images="x"),
    ],
)
def test_kuberay_would_refuse_a_wrong_field(change):
    spec = copy.deepcopy(JOB["spec"])
    change(spec)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, SCHEMA)


def test_versions_are_the_installed_ones():
    pins = dict(re.findall(r"^([\w.\[\]-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert CLUSTER["rayVersion"] == metadata.version("ray") == pins["ray"]
    assert set(re.findall(r"ray\[default\]==([\d.]+)", IMAGE)) == {pins["ray"]}
    assert set(re.findall(r"torch==([\d.]+)", IMAGE)) == {pins["torch"].partition("+")[0]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {c["image"].rpartition(":")[2] for group in GROUPS for c in group["template"]["spec"]["containers"]}
    assert images == {project}


def test_the_image_contains_what_is_installed_and_no_more():
    """The checkout also holds secrets (mlflow/.env), history and homes."""
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    read = ["pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]]
    assert (first, rest[-1]) == ("*", "**/__pycache__")
    assert sorted(rest[:-1]) == sorted(f"!{name}" for name in [*installed, *read])


def test_ray_and_harness_know_every_option():
    from ray.scripts import scripts

    for group in GROUPS:
        words = [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
        scripts.start.make_context("start", words)
    name, *words = shlex.split(JOB["spec"]["entrypoint"])
    assert name == "harness"
    context = cli.main.make_context("harness", list(words))
    verb, command, rest = cli.main.resolve_command(context, words)
    options = command.make_context(verb, list(rest), parent=context).params
    assert options["address"] == "auto"


def test_the_home_is_on_the_volume_and_the_head_computes_nothing():
    (head,) = CLUSTER["headGroupSpec"]["template"]["spec"]["containers"]
    (mount,) = head["volumeMounts"]
    assert f"--home {mount['mountPath']} " in JOB["spec"]["entrypoint"]
    (volume,) = CLUSTER["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == VOLUME["metadata"]["name"]
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert CLUSTER["authOptions"]["mode"] == "token"
    assert all(group["minReplicas"] == group["replicas"] for group in CLUSTER["workerGroupSpecs"])
