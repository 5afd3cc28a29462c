"""Named suites: their options, overrides, hash and record."""

import pytest
from click.testing import CliRunner
from dataset_files import make_dataset
from small_homes import request, run

from harness import cli, registry
from harness.api import parsed
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables
from harness.search import ensembles, suites
from harness.types import HarnessError
from harness.verbs import bench
from harness.verbs._request import request_of


def requested(tmp_path, **options):
    return request_of(parsed("bench", bench.command, {"home": tmp_path, **options}))


@pytest.mark.parametrize("name", suites.names())
def test_every_shipped_suite_names_what_there_is(name, tmp_path):
    asked = requested(tmp_path, suite=name)
    assert ensembles.select(asked.adapters, asked.budget.seeds).adapters
    assert registry.select(registry.BACKBONES, asked.backbones)
    assert asked.suite == suites.suite(name)
    assert suites.title(name)


def test_the_suite_of_spectran_has_its_grid(tmp_path):
    asked = requested(tmp_path, suite="spectran")
    assert asked.datasets.split(",") == [f"amazon2014-{name}" for name in ("beauty", "toys", "clothing", "office")]
    assert asked.backbones == "sasrec,bert4rec,hstu"
    assert asked.budget.trials == 16
    assert {"id", "spectran", "alphafuse"} <= set(ensembles.select(asked.adapters, 5).adapters)


def test_options_override_a_suite_and_are_named(tmp_path):
    asked = requested(tmp_path, suite="smoke", epochs=3, set={"train.d": 8})
    assert asked.budget.epochs == 3
    assert asked.datasets == "ml-100k"
    assert asked.suite is not None
    assert asked.suite.changed == ("epochs", "set")
    assert asked.suite.hash == suites.suite("smoke").hash


def test_settings_join_those_of_a_suite_and_plain_data_sets_replace_its_own(tmp_path):
    with bench.command.make_context("bench", ["--suite", "smoke", "./toy", "--set", "train.d=8"]) as context:
        asked = request_of(context.params | {"home": tmp_path})
    assert asked.datasets == "./toy"
    assert asked.spaces.pinned("train") == {**asked.spaces.pinned("train"), "d": 8, "max_len": 20}


def test_an_option_that_repeats_the_suite_is_no_change(tmp_path):
    asked = requested(tmp_path, suite="smoke", epochs=2, encoders="noise")
    assert asked.suite is not None
    assert asked.suite.changed == ()


def test_the_hash_covers_options_and_version(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "_folder", lambda: tmp_path)

    def hash_of(text):
        (tmp_path / "s.toml").write_text(text)
        return suites.suite("s").hash

    base = hash_of('title = "a"\nversion = 1\n[options]\nseeds = 2\n')
    assert hash_of('title = "b"\nversion = 1\n[options]\nseeds = 2\n') == base
    assert hash_of('title = "a"\nversion = 2\n[options]\nseeds = 2\n') != base
    assert hash_of('title = "a"\nversion = 1\n[options]\nseeds = 3\n') != base


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 1\n[options]\nepoch = 2\n", "there is no option 'epoch'. Did you mean 'epochs'?"),
        ("version = 1\n[options]\nhome = 'x'\n", "there is no option 'home'"),
        ("version = 1\n", "has no table [options]"),
        ("version = 'x'\n[options]\n", "version must be a whole number"),
        ("version = \n", "is not valid TOML"),
    ],
)
def test_a_malformed_suite_is_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "_folder", lambda: tmp_path)
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(HarnessError) as error:
        requested(tmp_path, suite="s")
    assert message in str(error.value)


def test_an_unknown_suite_exits_with_2_and_a_hint():
    result = CliRunner().invoke(cli.main, ["plan", "--suite", "smok"])
    assert result.exit_code == 2
    assert "Did you mean 'smoke'?" in result.output


def test_a_table_names_its_suite(tmp_path):
    asked = request(tmp_path / "home", make_dataset(tmp_path / "toy", users=60), "id")
    suite = suites.suite("smoke").with_changes(["datasets"])
    run(asked.__class__(**{**vars(asked), "suite": suite}))
    ledger = Ledger.open(tmp_path / "home")
    launch = ledger.launches[max(ledger.launches)]
    assert launch.suite == {"name": "smoke", "version": 1, "hash": suite.hash, "changed": ["datasets"]}
    assert LaunchRecord.from_json({**launch.to_json(), "time": launch.time}) == launch
    printed = tables.render(tables.build(ledger_frames.of_home(tmp_path / "home")), "terminal")
    assert f"Suite: name smoke · version 1 · hash {suite.hash} · changed datasets" in printed


@pytest.mark.parametrize(("word", "changed"), [("ml-100k", ()), ("./toy", ("datasets",))])
def test_a_plain_data_set_changes_a_suite_only_if_it_is_another(tmp_path, word, changed):
    with bench.command.make_context("bench", ["--suite", "smoke", word]) as context:
        asked = request_of(context.params | {"home": tmp_path})
    assert asked.suite is not None
    assert asked.suite.changed == changed
