"""Verbs that only read create no folders and report what is missing."""

import json
import os

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.record import artifacts
from harness.types import HarnessError

ASKED = [
    ["cache"],
    ["cache", "--gc"],
    ["cache", "--json"],
    ["list"],
    ["show", "sasrec"],
    ["status"],
    ["status", "--json"],
    ["leaderboard"],
    ["leaderboard", "--from-mlflow"],
    ["compare", "a", "b"],
    ["paper", "gsasrec"],
    ["reproduce", "id"],
    ["export", "id", "--output", "out"],
]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
@pytest.mark.parametrize("place", ["", "above/"])
def test_a_home_that_is_not_there_stays_so(tmp_path, words, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, [*words, "--home", f"{place}none"])
    assert found.exit_code in (0, 2), found.output
    assert "Traceback" not in found.output
    assert found.exit_code == 0 or found.output.startswith("Error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """What `doctor` says, by name, of a home below a folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)

    def examine(home):
        found = CliRunner().invoke(main, ["doctor", "--json", "--home", str(home)])
        return {check["name"]: check for check in json.loads(found.output)["checks"]}

    return examine


def test_doctor_makes_no_folder_and_says_so(tmp_path, checks):
    found = checks(tmp_path / "above" / "none")
    assert found["home"]["ok"]
    assert "not created yet" in found["home"]["found"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "none", "/proc/none"):
        assert not checks(home)["home"]["ok"]
        assert "--home" in checks(home)["home"]["remedy"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[datasets", "not TOML"),
        (b"[datasets]\nshop = 3", "datasets.shop must be the path of a folder"),
        (b"[datasets]\nshop = '\xff'", "line 2 is not UTF-8"),
        (b"[datasets]\nshop = '~nobody-here/shop'", "'~nobody-here/shop' is not a path"),
        (b'[datasets]\nshop = "a\\u0000b"', "'a\\x00b' is not a path"),
        (b"[datasets]\n[embeddings]\nshop = { titles = 3 }", "embeddings.titles must be the path of a file"),
        (b"[datasets]\n[embedings.shop]\ntitles = 'E.npy'", "'embedings' is not read. Did you mean 'embeddings'?"),
    ],
    ids=["no TOML", "no text", "no UTF-8", "no user", "a zero byte", "no matrix", "no such table"],
)
def test_doctor_names_the_fault_of_a_config_at_which_other_commands_end(tmp_path, checks, text, words):
    assert checks(tmp_path)["config"] == {"name": "config", "ok": True, "found": "none", "remedy": ""}
    config = tmp_path / "config.toml"
    config.write_bytes(b"[datasets]\nshop = 'shop'\n")
    assert checks(tmp_path)["config"]["found"] == f"{config}, 1 data set(s)"
    config.write_bytes(text)
    found = CliRunner().invoke(main, ["doctor", "--home", str(tmp_path)])
    [line] = [line for line in found.stdout.splitlines() if line.startswith("BAD config ")]
    assert str(config) in line
    assert words in line
    assert found.exit_code == 1
    if b"[datasets" in text:
        listed = CliRunner().invoke(main, ["list", "--home", str(tmp_path)])
        assert (listed.exit_code, listed.stderr.startswith(f"Error: {config}: ")) == (2, True), listed.output
        assert words in listed.stderr


def test_doctor_looks_at_the_modes_of_rays_tokens(tmp_path, checks, monkeypatch):
    assert checks(tmp_path)["ray token"] == {"name": "ray token", "ok": True, "found": "none", "remedy": ""}
    token, named = tmp_path / ".ray" / "auth_token", tmp_path / "named"
    token.parent.mkdir()
    for path in (token, named):
        path.write_text("secret")
        path.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    found = checks(tmp_path)
    assert not found["ray token"]["ok"]
    assert f"chmod 600 {token}" in found["ray token"]["remedy"]
    assert f"chmod 600 {named}" in found["RAY_AUTH_TOKEN_PATH"]["remedy"]
    token.chmod(0o600)
    named.chmod(0o600)
    assert checks(tmp_path)["ray token"]["ok"]
    assert checks(tmp_path)["RAY_AUTH_TOKEN_PATH"]["ok"]


def test_doctor_names_the_variables_that_change_commands_but_no_value(tmp_path, checks, monkeypatch):
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        monkeypatch.delenv(name)
    assert checks(tmp_path)["variables"]["found"] == "none of harness is set"
    monkeypatch.setenv("HARNESS_API_KEY", "secret")
    monkeypatch.setenv("HARNESS_BENCH_TRIALS", "3")
    assert checks(tmp_path)["variables"]["found"] == "set: HARNESS_API_KEY, HARNESS_BENCH_TRIALS"


def test_doctor_reads_the_components_and_the_cluster_of_the_environment(tmp_path, checks, monkeypatch):
    for name in ("HARNESS_COMPONENTS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    found = checks(tmp_path)
    assert found["components"]["found"] == "only the built-in ones"
    assert found["cluster"]["found"] == "benches start their own"
    monkeypatch.setenv("HARNESS_COMPONENTS", str(tmp_path / "none"))
    monkeypatch.setenv("RAY_ADDRESS", "head")
    found = checks(tmp_path)
    assert str(tmp_path / "none") in found["components"]["found"]
    assert "unset HARNESS_COMPONENTS" in found["components"]["remedy"]
    assert "RAY_ADDRESS is 'head'" in found["cluster"]["found"]
    assert "unset RAY_ADDRESS" in found["cluster"]["remedy"]


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_doctor_names_the_variable_whose_folder_is_too_long_for_rays_sockets(tmp_path, checks, monkeypatch, name):
    assert "passed over" not in checks(tmp_path)["ray sockets"]["found"]
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setenv(name, str(long))
    found = checks(tmp_path)["ray sockets"]
    assert found["ok"]
    assert f"{name} is ignored" in found["found"]
    assert str(len(str(long))) in found["found"]


def test_without_home_and_a_user_of_no_name_the_option_is_named(monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(artifacts.Path, "expanduser", unknown)
    for find in (artifacts.find_home, artifacts.check_home):
        with pytest.raises(HarnessError, match=r"HOME is not set.*--home"):
            find(artifacts.Path("~/.harness"))
