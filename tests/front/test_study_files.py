"""Study files, variables of the environment and completion: other ways to write the options of the command line."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_line import bench_words, events, harness, harness_process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import api, registry
from harness.cli import main
from harness.record import leases
from harness.system import files
from harness.types import HarnessError
from harness.verbs import _save, _study, bench, plan
from harness.verbs._request import request_of
from harness.workflows import detached

SOURCES = Path(__file__).parents[2] / "harness"


def options_of(*words, command=bench.command, environment=True):
    """The options of a command as its function gets them."""
    prefix = f"HARNESS_{'BENCH' if command is bench.command else 'PLAN'}" if environment else None
    with command.make_context("bench", list(words), auto_envvar_prefix=prefix) as context:
        return context.params


@pytest.fixture(autouse=True)
def home(home, monkeypatch):
    monkeypatch.setenv("HARNESS_HOME", str(home))
    return home


@pytest.fixture
def study(tmp_path):
    def write(text):
        path = tmp_path / "study.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


# Round trip

NAMES = {
    "datasets": ["ml-100k", "amazon2014-{beauty,toys}", "!ml-1m", "/data/a, b", "/data/x"],
    "adapters": ["all", "!svd", "mlp[hidden=256,dropout=0.1]", "id+text"],
    "backbones": ["sasrec", "hstu", "sasrec[n_heads=1]"],
    "encoders": ["minilm", "shuffled:minilm", "file:/data/a,b.npy", "variants:st:/data/m+noise"],
    "order": ["rating", "core"],
    "labels": ["spot=false", "zone!=b"],
}
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0@"), max_size=12).filter(
    lambda text: "://" not in text  # addresses lose what may be a secret
)
SETTING = st.sampled_from(["1", "0.25", "1e-05", "true", "None", "relu", "'1'", "[1, 2]", "10**3", "'x y'"])


def values(key, option):
    """A strategy for a value of an option, as it is written on the command line."""
    kind = option.type
    if isinstance(kind, click.Path):
        paths = st.sampled_from(["/data/a b", "/data/ü"])
        return st.lists(paths, min_size=1, unique=True) if option.multiple else paths
    if option.multiple:
        names = st.sampled_from(["train.d", "train.lr", "loss.t", "text.fusion"])
        return st.lists(st.tuples(names, SETTING).map("=".join), min_size=1, max_size=4)
    if option.is_flag:
        return st.booleans()
    if isinstance(kind, click.IntRange):
        return st.integers(int(kind.min or 0), int(kind.max or 9)).map(str)
    if isinstance(kind, click.FloatRange):
        least = 1e-3 if kind.min_open else kind.min
        return st.floats(least, kind.max, allow_nan=False, allow_infinity=False).map(repr)
    if isinstance(kind, click.Choice):
        return st.sampled_from(list(kind.choices))
    if isinstance(kind, _study.Names):
        return st.lists(st.sampled_from(NAMES[key]).map(registry.quoted), min_size=1).map(",".join)
    return PLAIN


KEYS = {key: option for key, option in _study.keys().items() if key != "suite"}
GRIDS = st.fixed_dictionaries({}, optional={key: values(key, option) for key, option in KEYS.items()})


def words_of(grid):
    words = []
    for key, value in grid.items():
        option = KEYS[key]
        if option.is_flag:
            words += [option.opts[0]] if value else option.secondary_opts[:1]
        else:
            words += [f"{option.opts[0]}={part}" for part in (value if option.multiple else [value])]
    return words


def comparable(options):
    """Options as the plan reads them: lists split, settings by parameter."""
    names = {str(option.name) for option in KEYS.values() if isinstance(option.type, _study.Names)}
    split = {name: options[name] and registry.split_list(options[name]) for name in names}
    settings = registry.split_overrides(f"set[{','.join(options['set'])}]")[1] if options["set"] else {}
    return {name: value for name, value in options.items() if name != "save"} | split | {"set": settings}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grid=GRIDS, suite=st.sampled_from([None, "smoke", "spectran"]))
def test_a_saved_study_says_what_its_command_line_said(tmp_path, grid, suite):
    os.environ.pop("HARNESS_HOME", None)  # it would win over the study; the fixture restores it
    meant = options_of(*words_of(grid), *(["--suite", suite] if suite else []))
    path = tmp_path / "saved.toml"
    path.write_text(_save.text(meant), encoding="utf-8")
    assert comparable(options_of(str(path))) == comparable(meant)


def test_a_saved_study_holds_only_what_differs_from_the_defaults(home):
    text = _save.text(options_of("--budget", "quick", "--adapters", "id,!svd", "--one-pass", "--set", "train.lr=1e-3"))
    assert text.splitlines()[1:] == [
        'adapters = ["id", "!svd"]', "iterate = false", f'home = "{home}"', "", "[set]", '"train.lr" = 0.001'
    ]  # fmt: skip


def test_a_saved_study_holds_the_home_that_a_variable_named(tmp_path, monkeypatch):
    """Without the variable, in a job of cron say, the study must still be that of this home."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    assert f'home = "{tmp_path}"' in _save.text(options_of("--home", str(tmp_path)))
    assert f'home = "{tmp_path}"' in _save.text(options_of())


def test_bench_and_plan_save_the_study_that_they_then_read(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    words = ["--datasets", f"./{dataset.name}", "--encoders", "noise", "--kcore", "0", "--adapters", "id"]
    runner, path = CliRunner(), tmp_path / "saved.toml"
    saved = runner.invoke(main, ["plan", *words, "--seeds", "3", "--save", str(path)])
    assert saved.exit_code == 0, saved.output
    monkeypatch.chdir("/")
    again = runner.invoke(main, ["plan", str(path)])
    assert again.stdout == saved.stdout
    assert runner.invoke(main, ["bench", str(path), "--dry-run"]).stdout == saved.stdout
    more = runner.invoke(main, ["plan", str(path), "--seeds", "4", "--save", str(path)])
    assert more.exit_code == 2
    assert "other content" in more.stderr
    assert tomllib.loads(path.read_text())["seeds"] == 3


def test_a_study_that_plan_saves_keeps_the_options_that_only_bench_has(study, tmp_path):
    path = study("top_k = 7\nseeds = 2\n")
    saved = CliRunner().invoke(main, ["plan", path, "--datasets", "nowhere", "--save", str(tmp_path / "b.toml")])
    assert saved.exit_code == 2, "nothing is written for a command line that is refused"
    assert not (tmp_path / "b.toml").exists()
    with plan.command.make_context("plan", [path]) as context:
        assert tomllib.loads(_save.text(context.params, with_home=False)) == {"top_k": 7, "seeds": 2}


def test_a_study_file_needs_its_suffix(tmp_path):
    saved = CliRunner().invoke(main, ["plan", "--save", str(tmp_path / "study")])
    assert saved.exit_code == 2
    assert "ends in .toml" in saved.stderr


# Secrets and paths


@pytest.mark.parametrize(
    ("option", "value", "public"),
    [
        ("--tracking", "http://ann:hunter2@host:5000", "http://host:5000"),
        ("--tracking", "http://ann:hun/ter2@host:5000", "http://host:5000"),
        ("--tracking", "postgresql://host/db?password=hunter2", "postgresql://host/db"),
        ("--artifacts", "s3://ann:hunter2@bucket/x", "s3://bucket/x"),
        ("--address", "ray://ann:hunter2@host:1", "ray://host:1"),
        ("--address", "ann:hunter2@host:1", "host:1"),
        ("--tracking", " HTTPS://ann:hunter2@host:5000", "HTTPS://host:5000"),
    ],
)
def test_secrets_are_not_written(option, value, public):
    text = _save.text(options_of(option, value))
    assert "ter2" not in text
    assert public in text


def test_a_wrong_type_does_not_repeat_the_value(study):
    with pytest.raises(HarnessError) as error:
        options_of(study('tracking = ["http://ann:hunter2@host"]'))
    assert "hunter2" not in str(error.value)


def test_relative_paths_in_a_study_are_relative_to_it(study, tmp_path, monkeypatch):
    (tmp_path / "E.npy").touch()
    (tmp_path / "spaces").mkdir()
    path = study('datasets = ["./toy", "ml-1m"]\nencoders = "file:E.npy,minilm"\nspaces = "spaces"\nhome = "h"')
    monkeypatch.chdir("/")
    monkeypatch.delenv("HARNESS_HOME")
    options = options_of(path)
    assert options["datasets"] == f"{tmp_path}/toy,ml-1m"
    assert options["encoders"] == f"file:{tmp_path}/E.npy,minilm"
    assert (options["spaces"], options["home"]) == (tmp_path / "spaces", f"{tmp_path}/h")
    assert options_of(study('spaces = "gsasrec"'))["spaces"] == Path("gsasrec")


def test_paths_below_the_users_folder_are_written_without_the_users_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "E.npy").touch()
    meant = options_of("--datasets", f"{tmp_path}/toy,ml-1m", "--encoders", f"file:{tmp_path}/E.npy")
    text = _save.text(meant)
    assert str(tmp_path) not in text
    (tmp_path / "s.toml").write_text(text)
    assert comparable(options_of(str(tmp_path / "s.toml"))) == comparable(meant)


# Precedence


def test_command_line_environment_study_suite_and_default_in_this_order(study, monkeypatch):
    path = study('suite = "smoke"\nepochs = 7\nseeds = 7\ntrials = 7')
    monkeypatch.setenv("HARNESS_BENCH_SEEDS", "8")
    monkeypatch.setenv("HARNESS_BENCH_TRIALS", "8")
    options = options_of("--trials", "9", path)
    assert [options[name] for name in ("trials", "seeds", "epochs", "encoders", "backbones")] == [
        9, 8, 7, "noise", "sasrec"
    ]  # fmt: skip
    assert options_of("--suite", "smoke", path)["epochs"] == 7


def test_settings_are_merged_by_parameter(study, monkeypatch):
    path = study('suite = "smoke"\n[set]\ntrain.max_len = 30\n"train.lr" = 1e-3')
    assert options_of(path, "--set", "train.lr=2")["set"] == ("train.d=16", "train.max_len=30", "train.lr=2")
    monkeypatch.setenv("HARNESS_BENCH_SET", "train.lr=3 train.d=4")
    assert options_of(path)["set"] == ("train.d=4", "train.max_len=30", "train.lr=3")
    assert options_of(path, "--set", "train.lr=2")["set"] == ("train.d=4", "train.max_len=30", "train.lr=2")


def test_data_sets_as_plain_words_replace_those_of_a_study(study, home):
    path = study('datasets = "ml-1m"')
    assert request_of(options_of(path, "ml-100k", "ml-10m")).datasets == "ml-100k,ml-10m"
    assert request_of(options_of("--datasets", "ml-100k", "ml-10m", path)).datasets == "ml-100k,ml-10m"
    assert request_of(options_of(path)).datasets == "ml-1m"


@pytest.mark.parametrize("key", [key for key, option in KEYS.items() if option.is_flag])
def test_a_keyword_overrides_a_switch_of_the_study_both_ways(study, key):
    name, option = str(KEYS[key].name), key.replace("-", "_")
    for value in (True, False):
        path = study(f"{key} = {str(not value).lower()}")
        assert api.parsed("bench", bench.command, {option: value}, [path])[name] is value


def test_the_python_api_reads_no_variables(monkeypatch):
    monkeypatch.setenv("HARNESS_BENCH_SEEDS", "8")
    assert api.parsed("bench", bench.command, {})["seeds"] is None


def test_lists_may_be_lists_or_comma_strings_and_keys_may_have_hyphens(study):
    one = options_of(study('adapters = ["id", "mlp[hidden=256,dropout=0.1]"]\ncold-items = 0.1'))
    two = options_of(study('adapters = "id,mlp[hidden=256,dropout=0.1]"\ncold_items = 0.1'))
    assert one == two
    assert one["cold_items"] == 0.1


# Bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3", "there is no option 'trails'. Did you mean 'trials'?"),
        ("keep_seen = true", "there is no option 'keep_seen'. Write filter_seen = false."),
        ("detach = true", "there is no option 'detach'"),
        ("trials = 2.5", "trials is a number; it takes a whole number"),
        ("trials = true", "trials is true or false; it takes a whole number"),
        ("trials = '3'", "trials is a string; it takes a whole number"),
        ("seeds = 0", "seeds: 0 is not in the range"),
        ("quantile = nan", "quantile: nan is not a finite number"),
        ("iterate = 'no'", "iterate is a string; it takes true or false"),
        ("budget = 'huge'", "budget: 'huge' is not one of 'quick', 'standard', 'paper'"),
        ("budget = ['quick']", "budget is a list; it takes one of quick, standard, paper"),
        ("adapters = [1]", "adapters is a list; it takes a string or a list of strings"),
        ("set = 'train.d=3'", "set is a string; it takes a table"),
        ("[set]\ntrain.d = [1]", "set.train.d is a list; it takes a number, a string, true or false"),
        ("window = 2020-01-01", "window is a date or time; it takes a string"),
        ("cold-items = 0.1\ncold_items = 0.1", "'cold_items' is there twice"),
        ("suite = 'smok'", "Did you mean 'smoke'?"),
        ("seeds = ", "is not valid TOML"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "bench"])
def test_a_wrong_study_is_one_line_with_file_key_and_what_is_allowed(study, text, message, verb):
    path = study(text)
    found = CliRunner().invoke(main, [verb, path])
    assert (found.exit_code, found.stdout) == (2, ""), found.output
    [line] = found.stderr.splitlines()
    assert message in line
    assert path in line or "suite" in text


def test_a_study_that_is_missing_is_one_line_with_the_nearest_name(study, tmp_path):
    study("")
    found = CliRunner().invoke(main, ["plan", str(tmp_path / "studdy.toml")])
    assert found.exit_code == 2
    assert "There is no study file" in found.stderr
    assert "Did you mean 'study.toml'?" in found.stderr
    two = CliRunner().invoke(main, ["plan", "a.toml", "b.toml"])
    assert (two.exit_code, "Two study files" in two.stderr) == (2, True)


# Environment


def commands():
    context = click.Context(main)
    return {name: main.get_command(context, name) for name in main.list_commands(context)}


def test_every_option_has_a_variable_with_its_long_name(monkeypatch):
    monkeypatch.delenv("HARNESS_HOME")
    for verb, command in commands().items():
        context = click.Context(command, auto_envvar_prefix=f"HARNESS_{verb.upper()}")
        for option in command.params:
            if isinstance(option, click.Option) and option.opts[0] not in ("--save", "--detach"):
                name = f"HARNESS_{verb}_{_study.long_name(option)}".upper()
                monkeypatch.setenv(name, "7")
                assert option.resolve_envvar_value(context) == "7", name
                monkeypatch.delenv(name)


def test_no_other_variable_of_harness_looks_like_an_option():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    others = set(re.findall(r'"(HARNESS_[A-Z_]+)"', text)) - {"HARNESS_HOME"}
    assert others
    prefixes = tuple(f"HARNESS_{verb.upper()}_" for verb in commands())
    assert [name for name in others if name.startswith(prefixes)] == []


def test_a_variable_sets_an_option_and_a_misspelt_one_is_refused(dataset, home):
    words = ["plan", "--datasets", str(dataset), "--encoders", "noise", "--adapters", "id", "--kcore", "0"]
    plain = harness(home, *words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_PLAN_SEEDS", "9")
        assert harness(home, *words).stdout == harness(home, *words, "--seeds", "9").stdout != plain.stdout
        patch.setenv("HARNESS_PLAN_SEDES", "9")
        refused = harness(home, *words)
    assert refused.returncode == 2
    assert "HARNESS_PLAN_SEDES sets no option. Did you mean HARNESS_PLAN_SEEDS?" in refused.stderr


# Completion


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("harness bench --adapters id,linear_", "id,linear_whiten"),
        ("harness plan --backbones sasrec,!gru", "sasrec,!gru4rec"),
        ("harness bench --datasets ml-100", "ml-100k"),
        ("harness bench --encoders mini", "minilm"),
        ("harness bench --encoders a", "api"),
        ("harness bench --adapters !al", "!all !alphafuse"),
        ("harness bench --protocol wi", "windows"),
    ],
)
def test_a_shell_completes_names(typed, expected):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_HARNESS_COMPLETE": "bash_complete"}
    code = "import sys; sys.argv = ['harness']; from harness.cli import main; main(prog_name='harness')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [f"plain,{word}" for word in expected.split()], done.stderr


# In the background


def test_a_wrong_command_line_is_refused_before_it_goes_to_the_background(dataset, home):
    for wrong in (["--adapters", "mpl"], ["--trials", "-1"], ["--datasets", "./nowhere"], ["--labels", "spot"]):
        refused = harness(home, "bench", "--datasets", str(dataset), "--encoders", "noise", "--detach", *wrong)
        assert refused.returncode == 2, refused.stderr
    assert harness(home, "bench", "--detach", "--dry-run").returncode == 2
    assert not (home / "logs").exists()


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize(
    ("address", "words"),
    [("bad", "is 'bad': Use 'auto', host:port"), ("127.0.0.1:1", "No Ray cluster at 127.0.0.1:1")],
)
def test_an_address_without_a_cluster_is_not_left_to_the_log(dataset, home, monkeypatch, address, words, variable):
    monkeypatch.setattr(detached, "start", lambda *_: pytest.fail("only its log would tell"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = ["bench", "--datasets", str(dataset), "--encoders", "noise", "--detach"]
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", address)
    refused = harness(home, *command, *([] if variable else ["--address", address]))
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_status_names_a_bench_whose_process_is_gone_or_on_another_machine(home):
    (home / "logs").mkdir()
    (home / "logs" / "20260101T000000.json").write_text("{")
    record = {"pid": os.getpid(), "place": leases.here()["place"], "log": "20260102T000000.log"}
    for place, born, running in ((record["place"], "0", False), ("elsewhere", leases.born(os.getpid()), None)):
        files.write_json(home / "logs" / "20260102T000000.json", record | {"place": place, "born": born})
        (home / "logs" / record["log"]).write_text("first\nlast\n\n")
        [bench] = json.loads(harness(home, "status", "--json").stdout)["background"]
        assert (bench["running"], bench["last_line"]) == (running, "last")
    assert "started on another machine: last" in harness(home, "status").stdout


def test_a_running_bench_is_told_behind_many_that_have_ended(home):
    (home / "logs").mkdir()
    record = {"pid": os.getpid(), "place": leases.here()["place"]}
    for day, born in ((1, leases.born(os.getpid())), (2, "0"), (3, "0"), (4, "0")):
        name = f"2026010{day}T000000"
        files.write_json(home / "logs" / f"{name}.json", record | {"born": born, "log": f"{name}.log"})
        (home / "logs" / f"{name}.log").touch()
    assert [bench.log.stem for bench in detached.newest(home)] == ["20260101T000000"]


def test_a_detached_bench_outlives_its_command_and_leaves_log_and_study(dataset, home, tmp_path):
    marked = "hunter2"
    uri = f"http://ann:{marked}@127.0.0.1:9"
    begun = harness_process(home, *bench_words(dataset, "--adapters", "id", "--tracking", uri, "--detach"))
    assert begun.returncode == 0, begun.stderr
    [log] = (home / "logs").glob("*.log")
    assert str(log) in begun.stdout
    pid = int(re.findall(r"pid (\d+)", begun.stdout)[0])
    assert f"pid {pid}" in harness(home, "status").stdout
    assert harness(home, "status", "--watch", "0.5").returncode == 0, "watch ends when the bench has"
    after = harness(home, "status").stdout
    assert "ended" in after
    assert str(log) in after
    [report] = (home / "reports").glob("*/study.toml")
    [launch] = events(home, "launched")
    assert launch["study"] == report.read_text()
    assert 'tracking = "http://127.0.0.1:9"' in launch["study"]
    assert [path for path in home.rglob("*") if path.is_file() and marked.encode() in path.read_bytes()] == []
    planned = harness(home, "plan", str(report))
    assert ", 0 to run." in planned.stdout, "the study of the report is the same grid"
