"""Bad input: one clear line, exit code 2, nothing lost."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import synthetic_ledgers
from click.testing import CliRunner
from command_line import bench_words, environment, harness, harness_process
from dataset_files import make_dataset

from harness.cli import main


def refused(process, *parts):
    assert process.returncode == 2, process.stderr
    lines = process.stderr.strip().splitlines()
    assert "Traceback" not in process.stderr
    assert lines[-1].startswith("Error: "), process.stderr
    for part in parts:
        assert part in lines[-1]


def bench(home, dataset, *words):
    """A bench that ends before it starts Ray, in this process."""
    return harness(home, *bench_words(dataset, "--tracking", "off", *words))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--adapters", "mpl"], ["There is no adapter 'mpl'", "Did you mean 'mlp'"]),
        (["--backbones", "sasrek"], ["There is no backbone 'sasrek'", "sasrec"]),
        (["--encoders", "minilmm"], ["There is no encoder 'minilmm'", "minilm"]),
        (["--sampler", "tpee"], ["tpee", "tpe"]),
        (["--datasets", "ml-100"], ["ml-100", "ml-100k"]),
        (["--datasets", "./nowhere"], ["nowhere"]),
        (["--datasets", ""], ["--datasets '' selects no "]),
        (["--datasets", ","], ["--datasets ',' selects no "]),
        (["--datasets", "ml-100k,!ml-100l"], ["'!ml-100l' excludes nothing", "Did you mean 'ml-100k'"]),
        (["--adapters", "!svd,svd"], ["'!svd' excludes nothing", "after the names that it excludes"]),
        (["--set", "train.rl=1"], ["train.rl", "train.lr"]),
        (["--set", "train.d"], ["--set 'train.d' is not parameter=value"]),
        (["--encoders", "st:x[pooling=cls,pooling=mean]"], ["fixes pooling twice"]),
        (["--prep", "default[kcore=1,kcore=2]"], ["fixes kcore twice"]),
        (["--set", "train.lr=fast"], ["--set train.lr = 'fast'", "a finite float > 0"]),
        (["--spaces", "nowhere"], ["nowhere", "no such folder"]),
        (["--spaces", "gsasrek"], ["gsasrek", "no such folder or published setting", "Did you mean 'gsasrec'"]),
        (["--text", "{titel}"], ["items.parquet", "no column 'titel'", "Did you mean 'title'"]),
        (["--datasets", "amazon2099-*"], ["matches no data set"]),
        (["--adapters", "alphafuse[fusion=add]"], ["alphafuse", "decides how text and ID are joined", "fusion"]),
        (["--tie-policy", "sorce"], ["sorce", "source"]),
        (["--adapters", "svd,!svd"], ["selects no "]),
        (["--set", "train.d=64", "--adapters", "svd", "--set", "text.fusion=none"], ["SVD keeps d=64"]),
    ],
)
def test_a_wrong_word_is_one_clear_line(dataset, home, words, parts):
    refused(bench(home, dataset, "--adapters", "mlp", "--backbones", "sasrec", *words), *parts)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["plan", "{}", "--quantile", "0.8"],
            "--quantile needs --protocol gts or windows; the protocol is 'loo'",
        ),
        (["plan", "{}", "--slots", "4"], "--deadline"),
        (["plan", "{}", "--cell-seconds", "60"], "--trials 0 searches nothing. Add --trials 16"),
        (
            ["plan", "{}", "--warm-start", "toy", "--trials", "1"],
            "1 search trial. Add --trials 5, or --budget standard; --trials 0",
        ),
        (["prepare", "{}", "--encoders", "noise", "--cost", "0.1", "--json"], "--json"),
        (["reproduce", "id", "--set", "train.lr=1"], "--search"),
        (["reproduce", "id", "--spaces", "gsasrec"], "--search"),
        (["export", "id", "--output", "x", "--lists", "--tracking", "http://127.0.0.1:9"], "--lists"),
        (["export", "id", "--output", "x", "--top-k", "3"], "--lists"),
        (["leaderboard", "--format", "md", "--slices", "--wide"], "--slices, --wide: only for --format terminal"),
        (["leaderboard", "--output", "x.csv", "--notes"], "--notes: only for --format terminal; the format is 'csv'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_an_option_that_would_do_nothing_is_refused(dataset, home, words, said):
    refused(harness(home, *(str(dataset) if word == "{}" else word for word in words)), said)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--protocol", "windows", "--folds", "500"], "leaves no user for the test of fold 0 (of 0 to 499)"),
        (["--max-history", "2"], "--protocol loo leaves no user for validation"),
        (["--labels", "foo"], "--labels foo: 'foo' is not key=value"),
        (["--threads", "1000"], "No node has room for a trial of 1000 thread(s)"),
    ],
)
def test_a_plan_refuses_what_the_bench_would(dataset, home, words, part):
    words = ["--datasets", str(dataset), "--encoders", "noise", "--kcore", "0", "--adapters", "id", *words]
    refused(harness(home, "plan", *words), part)
    refused(harness(home, "bench", "--dry-run", *words), part)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--artifacts", "foo://x"], "--artifacts foo://x cannot be used"),
        (["--address", "nohost"], "--address is 'nohost'"),
        (["--tracking", "nowhere"], "'nowhere' is no address of an MLflow store"),
    ],
)
def test_a_dry_run_checks_the_places_of_the_bench(dataset, home, words, part):
    refused(bench(home, dataset, "--dry-run", "--adapters", "id", *words), part)


def test_a_plan_as_json_has_the_cells_and_lines_of_the_text(dataset, home):
    words = ["--datasets", str(dataset), "--encoders", "noise", "--kcore", "0", "--adapters", "id,mlp"]
    words += ["--backbones", "sasrec,gru4rec", "--set", "train.d=63"]
    found = json.loads(harness(home, "plan", *words, "--json").stdout)
    text = harness(home, "plan", *words).stdout
    assert [skipped["adapter"] for skipped in found["skipped"]] == ["id", "mlp"]
    assert found["counts"]["skipped"] == 2
    assert all(
        f"{skipped['backbone']} / {skipped['adapter']}: {skipped['reason']}" in text for skipped in found["skipped"]
    )
    assert found["remarks"] == ["Cells that do not fit the rank of their text are found when the bench starts."]
    assert found["remarks"][0] in text


def test_a_published_setting_is_one_trial_and_its_seeds(dataset, home):
    words = ["--adapters", "id", "--encoders", "noise", "--kcore", "0", "--budget", "standard", "--json"]
    found = harness(home, "plan", "--datasets", str(dataset), "--spaces", "gsasrec", *words)
    cells = {cell["adapter"]: cell["to_run"] for cell in json.loads(found.stdout)["cells"]}
    assert cells["id"] == 1 + 5, found.stderr


def test_the_price_of_an_api_is_told_without_a_key_and_nothing_is_sent(dataset, home):
    words = ["--encoders", "api:text-embedding-3-small@http://127.0.0.1:9,noise", "--kcore", "0", "--cost", "0.02"]
    found = harness(home, "prepare", str(dataset), *words)
    assert found.returncode == 0, found.stderr
    paid, free = found.stdout.strip().splitlines()
    assert "40 texts, about" in paid
    assert "costs nothing" in free


def test_check_exits_with_1_for_an_error_and_with_0_for_less(dataset, home):
    good = harness(home, "check", str(dataset), "--kcore", "0")
    assert good.returncode == 0, good.stdout + good.stderr
    items = pl.read_parquet(dataset / "items.parquet")
    items.with_columns(item_id=pl.lit("x") + pl.col("item_id")).write_parquet(dataset / "items.parquet")
    sparse = make_dataset(dataset.parent / "sparse", users=20, items=60, length=4)
    assert harness(home, "check", str(sparse)).returncode == 1, "no 5-core is left"
    assert harness(home, "check", str(sparse), "--kcore", "0").returncode == 0
    bad = harness(home, "check", str(dataset), "--kcore", "0", "--json")
    assert bad.returncode == 1, bad.stderr
    assert any(finding["level"] == "error" for finding in json.loads(bad.stdout)["findings"])


def test_folders_are_registered_by_name_and_chosen_by_globs(tmp_path, home):
    for name in ("shop-a", "shop-b", "other"):
        made = harness(home, "register", name, str(make_dataset(tmp_path / name)))
        assert made.returncode == 0, made.stderr
    words = ["--adapters", "id", "--encoders", "noise", "--kcore", "0", "--json"]
    found = harness(home, "plan", "--datasets", "shop-*,!shop_b", *words)
    assert {cell["dataset"] for cell in json.loads(found.stdout)["cells"]} == {"shop-a"}, found.stderr
    refused(harness(home, "register", "shop-a", str(tmp_path / "shop-b")), "shop-a")
    refused(harness(home, "register", "all", str(tmp_path / "shop-b")), "'all' cannot be the name of a data set")
    refused(harness(home, "register", "--", "-x", str(tmp_path / "shop-b")), "'-x' cannot be the name of a data set")


def test_a_template_of_ones_own_is_another_embedding(dataset, home):
    hashes = set()
    for words in ([], ["--text", "{item_id} {title}"]):
        done = harness(home, "prepare", str(dataset), "--encoders", "noise", "--kcore", "0", "--json", *words)
        [card] = json.loads(done.stdout)
        hashes.add(card["hash"])
    assert len(hashes) == 2


def test_a_data_set_without_text_skips_what_reads_text(dataset, home):
    (dataset / "dataset.toml").write_text('text = ""')
    words = ["--adapters", "id,mlp", "--encoders", "minilm", "--kcore", "0", "--json"]
    found = json.loads(harness(home, "plan", "--datasets", str(dataset), *words).stdout)
    assert "mlp" not in {cell["adapter"] for cell in found["cells"]}
    assert found["counts"]["skipped"] >= 1
    card = harness(home, "prepare", str(dataset), "--kcore", "0")
    assert card.returncode == 0, card.stderr
    assert "nothing to encode" in card.stdout


def test_an_unknown_option_exits_with_2(home):
    assert harness_process(home, "bench", "--trails", "3").returncode == 2


def test_a_missing_column_is_named(dataset, home):
    table = pl.read_parquet(dataset / "interactions.parquet")
    table.rename({"item_id": "item"}).write_parquet(dataset / "interactions.parquet")
    refused(bench(home, dataset), "item_id", "interactions.parquet")


def test_one_user_is_too_few(tmp_path, home):
    folder = make_dataset(tmp_path / "lonely", users=1)
    refused(bench(home, folder), "lonely")


def test_nan_in_a_matrix_is_named(dataset, home, tmp_path):
    E = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)
    E[7, 3] = np.nan
    np.save(tmp_path / "E.npy", E)
    refused(bench(home, dataset, "--encoders", f"file:{tmp_path / 'E.npy'}", "--adapters", "svd"), "i007", "NaN")


def test_rows_that_do_not_align_are_told_with_both_numbers(dataset, home, tmp_path):
    np.save(tmp_path / "E.npy", np.zeros((39, 24), np.float32))
    refused(bench(home, dataset, "--encoders", f"file:{tmp_path / 'E.npy'}", "--adapters", "svd"), "39", "40")


def test_malformed_toml_is_named(dataset, home, tmp_path):
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "train.toml").write_text("lr = {")
    refused(bench(home, dataset, "--spaces", str(tmp_path / "spaces")), "train.toml", "not valid TOML")


def test_a_home_that_cannot_be_written_is_one_clear_line(dataset, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused(bench(blocked / "home", dataset), "cannot be written", "--home")


def test_an_empty_home_has_no_leaderboard(home):
    refused(harness(home, "leaderboard"), "holds no results yet")


def test_an_unknown_format_is_one_clear_line(home):
    refused(harness(home, "leaderboard", "--format", "htlm"), "htlm", "html")


def test_no_ray_cluster_at_an_address_is_one_clear_line(dataset, home):
    refused(bench(home, dataset, "--address", "127.0.0.1:1", "--adapters", "id"), "127.0.0.1:1")


def test_a_closed_pipe_is_no_traceback(home):
    command = f"{sys.executable} -m harness.cli list | head -1"
    process = subprocess.run(
        command, shell=True, env={**os.environ, "HARNESS_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in process.stderr


# Numbers


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--set", "train.lr=1e400"], "--set train.lr = inf is out of range; the parameter is a finite float > 0."),
        (["--set", "train.lr=-1"], "--set train.lr = -1.0 is out of range"),
        (["--set", "train.lr=0"], "--set train.lr = 0.0 is out of range"),
        (["--set", "train.lr=nan"], "--set train.lr = 'nan' is a str; the parameter is a finite float > 0."),
        (["--set", "train.d=0"], "--set train.d = 0 is out of range; the parameter is an int >= 1 and <= 16384."),
        (["--set", f"train.d=1{'0' * 30}"], "is out of range; the parameter is an int >= 1 and <= 16384."),
        (["--set", "train.d=10**30"], "--set train.d = '10**30' is a str"),
        (["--set", f"train.d={'(' * 300}"], "... is a str; the parameter is an int"),
        (["--set", "train.max_len=0"], "--set train.max_len = 0 is out of range"),
        (["--set", "train.loss=gbce", "--set", "loss.t=1.5"], "--set loss.t = 1.5 is out of range"),
        (["--set", "train.d=63"], "sasrec: n_heads = 2 does not divide d = 63"),
        (["--adapters", "mlp[dropout=1e400]"], "mlp[dropout] = inf is out of range; the parameter is a float"),
        (["--adapters", "mlp[hidden=0]"], "mlp[hidden] = 0 is out of range"),
        (["--adapters", "mlp[activation=tanh]"], "mlp[activation] = 'tanh' is out of range; the parameter is one of"),
        (["--adapters", "spectran[rank=8]"], "spectran: rank = 8 is below d = 64"),
        (["--backbones", "sasrec[dropout=0.99]"], "sasrec[dropout] = 0.99 is out of range"),
        (["--backbones", "sasrec[n_heads=0]"], "sasrec[n_heads] = 0 is out of range"),
    ],
)
def test_a_parameter_out_of_range_is_one_clear_line_before_any_data_is_read(home, words, part):
    found = CliRunner().invoke(main, ["plan", "--datasets", "./nowhere", "--home", str(home), *words])
    assert found.exit_code == 2, found.output
    assert found.stderr.startswith("Error: ")
    assert part in found.stderr.splitlines()[-1]


def test_cells_whose_heads_do_not_divide_d_are_skipped_by_plan_and_the_others_stay(dataset, home):
    words = ["--datasets", str(dataset), "--home", str(home), "--adapters", "id", "--backbones", "sasrec,gru4rec"]
    found = CliRunner().invoke(main, ["plan", *words, "--encoders", "noise", "--kcore", "0", "--set", "train.d=63"])
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    [skipped] = [line for line in lines if "skipped" in line]
    assert "sasrec / id: sasrec: n_heads = 2 does not divide d = 63" in skipped
    assert any("pending" in line and "gru4rec / id" in line for line in lines)


NUMBERS = {
    "plan": [
        "cell-seconds",
        "trials",
        "epochs",
        "patience",
        "seeds",
        "quantile",
        "kcore",
        "min-rating",
        "slots",
        "deadline",
    ],
    "bench": ["gpu", "watchdog", "threads", "max-history", "max-title-words"],
    "leaderboard": ["at-trials"],
    "reproduce": ["seeds", "tolerance"],
    "status": ["watch"],
    "cache": ["days"],
    "prepare": ["cost"],
}


WRONG = ["nan", "inf", "1e400", "-1e400", "-1", f"1{'0' * 400}"]
CASES = [(verb, option, value) for verb, options in NUMBERS.items() for option in options for value in WRONG]
CASES.remove(("plan", "min-rating", "-1"))  # a rating may be negative


@pytest.mark.parametrize(("verb", "option", "value"), CASES)
def test_no_option_takes_infinity_nan_or_what_is_out_of_its_range(dataset, home, verb, option, value):
    given = {"plan": ["--adapters", "id"], "reproduce": ["row"], "prepare": [str(dataset)]}.get(verb, [])
    given = [*given, "--datasets", str(dataset), "--encoders", "noise"] if verb in ("plan", "bench") else given
    protocol = ["--protocol", "gts"] if option == "quantile" else []
    words = [verb, *given, *protocol, f"--{option}={value}", "--home", str(home)]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 2, found.output
    assert isinstance(found.exception, SystemExit)
    if option != "watch":  # its value may be left out, so that click takes -1 for an option
        assert option in found.stderr.splitlines()[-1]


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_an_output_that_names_no_file_is_one_clear_line(home, output):
    found = CliRunner().invoke(main, ["leaderboard", "--home", str(home), "--output", output])
    assert found.exit_code == 2, found.output
    assert "is no file name; give one such as table.md" in found.stderr


def test_a_table_for_the_terminal_in_a_file_is_what_is_printed(home, tmp_path):
    synthetic_ledgers.write(home, datasets=1)
    words = ["leaderboard", "--home", str(home), "--notes", "--slices", "--lists", "--wide"]
    printed = CliRunner().invoke(main, words)
    assert printed.exit_code == 0, printed.output
    assert CliRunner().invoke(main, [*words, "--output", str(tmp_path / "table.txt")]).exit_code == 0
    assert (tmp_path / "table.txt").read_text().rstrip("\n") == printed.stdout.rstrip("\n")
    plain = CliRunner().invoke(main, words[:3]).stdout
    assert len(plain.splitlines()) < len(printed.stdout.splitlines())


@pytest.mark.parametrize("name", ["table.xlsx", "table.latex", "table.foo"])
def test_a_suffix_that_is_no_format_is_one_clear_line(home, tmp_path, name):
    synthetic_ledgers.write(home, datasets=1)
    words = ["leaderboard", "--output", str(tmp_path / name)]
    refused(harness(home, *words), f"no table format has the suffix {name[5:]}", "Known: csv", "or add --format")
    assert ("Did you mean 'tex'?" in harness(home, *words).stderr) == (name == "table.latex")
    assert not (tmp_path / name).exists()
    assert harness(home, *words, "--format", "csv").returncode == 0


@pytest.mark.parametrize("words", [["plan"], ["status"], ["list"], ["prepare", "ml-100k"], ["doctor"]])
def test_an_empty_home_is_not_the_working_folder(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    refused(harness(tmp_path / "home", *words, "--home", ""), "--home is empty; name a folder.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["status"], ["leaderboard"], ["export", "row", "--output", "x"], ["reproduce", "row"], ["publish", "x"]]
)
def test_a_home_that_is_not_there_is_named(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "typo"
    refused(harness(there, *words), f"There is no home folder {there}; name another with --home or HARNESS_HOME")
    there.mkdir()
    refused(harness(there, *words), f"{there} holds no results yet; run: harness bench --home {there}")


def test_preparation_is_refused_for_a_component(home):
    refused(harness(home, "show", "mlp", "--text", "{title}", "--kcore", "9"), "--text, --kcore: only for a data set")
    refused(harness(home, "show", "id+text", "--one-pass"), "--iterate: only for a data set; 'id+text' is none.")


def test_a_name_in_other_letters_is_suggested(home):
    refused(harness(home, "show", "SVD-Whiten"), "Did you mean 'svd_whiten'?")
    refused(harness(home, "show", "mlp[dropout=0.1]"), "'mlp[dropout=0.1]'. Did you mean 'mlp'?")
    refused(harness(home, "plan", "--backbones", "SASRec"), "Did you mean 'sasrec'?")


def test_published_settings_and_suites_are_shown(home):
    shown = {
        name: json.loads(harness(home, "show", name, "--json").stdout) for name in ("gsasrec", "smoke", "spectran")
    }
    assert shown["gsasrec"]["kind"] == "published setting, for --spaces"
    assert "n_blocks = 2" in shown["gsasrec"]["backbones/sasrec.toml"]
    assert (shown["smoke"]["kind"], shown["smoke"]["version"]) == ("suite, for --suite", 1)
    assert shown["smoke"]["options"]["epochs"] == 2
    assert shown["spectran"]["kind"] == "adapters"
    assert shown["spectran"]["suite, for --suite"]["title"].startswith("SpecTran's question")
    assert "text.toml" in shown["spectran"]["published setting, for --spaces"]
    refused(harness(home, "show", "gsasrek"), "published setting or suite 'gsasrek'. Did you mean 'gsasrec'?")


def test_a_home_that_is_not_there_is_not_mirrored(home):
    found = CliRunner().invoke(main, ["sync", "--home", str(home / "hmoe")])
    assert found.exit_code == 2, found.output
    assert f"{home / 'hmoe'} holds no results yet" in found.stderr
    assert not (home / "hmoe").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["leaderboard", "--output=~/out"],
        ["publish", "--index=~/out"],
        ["verify", "~/out"],
        ["merge", "~/out"],
        ["new", "adapter", "mine", "--output=~/out"],
        ["plan", "--spaces=~/out"],
    ],
)
def test_a_tilde_that_the_shell_left_is_the_users_folder(tmp_path, monkeypatch, words):
    """Bash does not expand the one in `--output=~/table.md`; a folder named ~ would invite `rm -r ~`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    home = tmp_path / "home"
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    found = CliRunner().invoke(main, words, env={"HARNESS_HOME": str(home)})
    assert not isinstance(found.exception, Exception), found.output
    assert not list((tmp_path / "here").iterdir())
    assert str(tmp_path / "user") in found.output or (tmp_path / "user" / "out").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "ascii"])
def test_a_table_is_printed_in_any_encoding(home, encoding):
    synthetic_ledgers.write(home, datasets=1)
    command = [sys.executable, "-m", "harness.cli", "leaderboard"]
    variables = environment(home) | {"PYTHONIOENCODING": encoding}
    found = subprocess.run(command, env=variables, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    letters = found.stdout.decode("utf-8" if encoding == "ascii" else encoding)  # click writes UTF-8 in place of ASCII
    assert ("≥" in letters) == (encoding in ("utf-8", "ascii"))
    assert ("\\u2265" in letters) == (encoding not in ("utf-8", "ascii"))


def test_without_docstrings_a_bench_is_one_clear_line_and_reading_verbs_work(dataset, home):
    def run(*words):
        command = [sys.executable, "-OO", "-m", "harness.cli", *words]
        return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)

    words = ["--datasets", str(dataset), "--encoders", "noise", "--adapters", "id", "--kcore", "0"]
    for refused_words in (["bench", *words], ["plan", *words, "--deadline", "1h"]):
        refused(run(*refused_words), "PYTHONOPTIMIZE=2", "unset PYTHONOPTIMIZE or set it to 1")
    for read in (["--help"], ["list"], ["plan", *words]):
        assert run(*read).returncode == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "--min-rating", "nan"], "'--min-rating': nan is not a finite number."),
        (["plan", "--budget", "slow"], "'--budget': 'slow' is not one of 'quick', 'standard', 'paper'."),
        (
            ["plan", "--trails", "3"],
            "No such option '--trails'. (Did you mean one of: '--threads', '--train-users', '--trials'?)",
        ),
        (["export"], "Missing argument"),
        (["--home", "h", "bench"], "No such option '--home'."),
        (["--nope"], "No such option '--nope'."),
    ],
)
def test_wrong_use_of_the_command_line_is_one_line_that_names_the_help(words, says):
    found = CliRunner().invoke(main, words)
    verb = "" if words[0].startswith("-") else f" {words[0]}"
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert says in found.stderr
    assert found.stderr.endswith(f"See: main{verb} --help\n")
