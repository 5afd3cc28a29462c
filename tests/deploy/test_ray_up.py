"""deploy/ray-up-hosts.yaml against Ray's own checks of a cluster's YAML."""

import re
import shlex
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml

FILE = Path(__file__).parents[2] / "deploy" / "ray-up-hosts.yaml"


def validated(config):
    from ray.autoscaler._private import util

    config = util.prepare_config(config)
    util.validate_config(config)
    return config


def test_ray_accepts_it():
    config = validated(yaml.safe_load(FILE.read_text()))
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_ray_would_refuse_an_unknown_field():
    with pytest.raises(jsonschema.ValidationError):
        validated(yaml.safe_load(FILE.read_text()) | {"worker_count": 2})


def test_it_names_the_installed_ray_and_starts_it_with_a_token():
    text = FILE.read_text()
    assert set(re.findall(r"(?:[Rr]ay |==)(2\.\d+\.\d+)", text)) == {metadata.version("ray")}
    config = yaml.safe_load(text)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in (command for command in starts if "ray start" in command):
        from ray.scripts import scripts

        assert "RAY_AUTH_MODE=token ray start" in command
        scripts.start.make_context("start", shlex.split(command.partition("ray start ")[2]))
