"""Files and folders that may not be read: one line names them, and nothing is taken for missing or empty."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment, harness

PUBLISHED = Path(__file__).parents[2] / "results" / "office"
COMMANDS = """
import json, os, sys
from click.testing import CliRunner
from harness.cli import main
found = []
for place, words in json.loads(sys.argv[1]):
    mode = os.stat(place).st_mode
    os.chmod(place, 0)
    result = CliRunner().invoke(main, words)
    os.chmod(place, mode)
    found.append([result.exit_code, result.stderr, repr(result.exception)])
print(json.dumps(found))
"""


def without_rights() -> list[str]:
    """The beginning of a command that has no right to read everything, which root has."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv to give that up")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all", "--"]


def test_a_place_without_permission_is_named_in_one_line(tmp_path, home, dataset):
    merged, library = tmp_path / "merged", tmp_path / "library"
    assert harness(home, "merge", str(PUBLISHED), "--home", str(merged)).returncode == 0
    assert harness(home, "new", "adapter", "mine", "--output", str(library)).returncode == 0
    publication = shutil.copytree(PUBLISHED, tmp_path / "publication")
    cases = [(dataset, [verb, str(dataset)]) for verb in ("check", "show")]
    cases += [
        (dataset / file, ["plan", "--datasets", str(dataset)]) for file in ("interactions.parquet", "items.parquet")
    ]
    cases += [(merged / "ledger", [*words, "--home", str(merged)]) for words in (["leaderboard"], ["status"])]
    again = [str(tmp_path / "again")]
    cases += [(merged / "ledger", ["publish", *again, "--home", str(merged)])]
    ranks = next((merged / "artifacts").glob("*/ranks.parquet"))
    cases += [(ranks, ["leaderboard", "--home", str(merged)]), (ranks, ["publish", *again, "--home", str(merged)])]
    cases += [(library / "adapters", ["list", "--components", str(library)])]
    cases += [(publication / name, ["verify", str(publication)]) for name in ("manifest.json", "ranks", "ledger")]
    program = [sys.executable, "-c", COMMANDS, json.dumps([(str(place), words) for place, words in cases])]
    done = subprocess.run([*without_rights(), *program], env=environment(home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (place, words), (code, said, raised) in zip(cases, json.loads(done.stdout), strict=True):
        assert (code, said.count("\n")) == (2, 1), (words, said, raised)
        assert f"{place}" in said, (words, said)
        assert "ermission denied" in said, (words, said)


def test_a_name_that_is_too_long_for_a_file_is_reported_in_one_line(home):
    for words in (["plan", "--datasets", "x" * 300], ["list", "--components", "x" * 300], ["show", "x" * 300]):
        done = harness(home, *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "name too long" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["leaderboard", "--home", "{}"],
        ["plan", "--datasets", "{}"],
        ["plan", "--datasets", "{dataset}", "--encoders", "file:{}"],
        ["plan", "--datasets", "{dataset}", "--encoders", "st:{}"],
        ["plan", "--components", "{}"],
        ["plan", "{}.toml"],
        ["plan", "--save", "{}.toml"],
        ["show", "{}"],
        ["check", "{}"],
        ["register", "mine", "{}"],
        ["new", "adapter", "mine", "--output", "{}"],
        ["export", "id", "--output", "{}"],
        ["compare", "{}", "{}"],
        ["paper", "{}.toml"],
    ],
    ids=" ".join,
)
def test_a_path_of_an_unknown_user_is_named_in_one_line(home, dataset, words):
    place = "~nobody-of-that-name/place"
    done = harness(home, *(word.replace("{}", place).replace("{dataset}", str(dataset)) for word in words))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert place in done.stderr
    assert "no user nobody-of-that-name; give the full path" in done.stderr
