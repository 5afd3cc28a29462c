"""`--warm-start DATASET --trials 0`: the winners of one table trained under another preparation, without a search."""

import pytest
import small_homes
from command_line import bench_words, events
from command_line import harness as command
from dataset_files import make_dataset

from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables

GRID = ["--adapters", "id,svd,linear,id+svd"]
SEARCHED = {"id", "svd", "linear"}
TRANSFER = ["--warm-start", "toy", "--trials", "0", "--max-history", "10"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with a searched table, one of the winners under another preparation, and their data set."""
    root = tmp_path_factory.mktemp("transfer")
    folder, home = make_dataset(root / "toy"), root / "home"
    small_homes.bench(home, folder, *GRID, "--trials", "4")
    searched = confirmed(home)
    return home, folder, searched, small_homes.bench(home, folder, *GRID, *TRANSFER).stdout


def confirmed(home):
    """Parameters and data of the newest confirmation of each trained row, read from the ledger's lines."""
    trials = [e["trial"] for e in events(home, "started") if e["trial"]["role"] == "confirm"]
    return {t["cell"]["adapter"]: (t["params"], t["inputs"]["data"]) for t in trials if t["cell"]["backbone"] != "none"}


def plan(home, folder, *words):
    return command(home, "plan", *bench_words(folder, *words)[1:])


def test_each_row_is_trained_as_its_winner_on_the_other_data_without_a_search(made):
    home, _, searched, _ = made
    again = confirmed(home)
    assert {name: again[name][0] for name in SEARCHED} == {name: searched[name][0] for name in SEARCHED}
    assert all(again[name][1] != searched[name][1] for name in SEARCHED)
    tried = [e for e in events(home, "started") if e["trial"]["role"] == "search"]
    assert len(tried) == len(SEARCHED) * 4, "those of the search"
    defaults = {e["trial"]["cell"]["adapter"]: e["trial"]["params"] for e in tried if e["number"] == 0}
    assert any(again[name][0] != defaults[name] for name in SEARCHED), "else the test shows nothing"


def test_an_ensemble_whose_part_was_not_confirmed_at_a_smaller_budget_is_not_announced(made):
    home, _, searched, _ = made
    first = min(Ledger.open(home).launches)
    tried = [e["trial"] for e in events(home, "started") if e["trial"]["role"] == "search" and e["number"] == 0]
    defaults = {trial["cell"]["adapter"]: trial["params"] for trial in tried}
    lost = [name for name in ("id", "svd") if searched[name][0] != defaults[name]]
    assert lost, "else the test shows nothing"
    [section] = tables.build(ledger_frames.of_home(home, run=first, at_trials=1)).sections
    [row] = [row for row in section.rows if row.cell.adapter == "id+svd"]
    assert (row.state, row.reason) == ("partial", f"the best of the first 1 trials of {lost[0]} was not confirmed")
    assert "unfinished" not in section.verdict


def test_the_table_says_where_its_configurations_come_from_and_what_they_may_have_seen(made):
    printed = made[3]
    assert "no search (winners of 4 trials on toy)" in printed
    assert "Configurations are the winners of other searches on this data set." in " ".join(printed.split())
    said = plan(*made[:2], *GRID, *TRANSFER).stdout
    assert "3 cells are trained as the winners of their searches on toy, in the table of launch " in said


def test_the_same_command_finds_nothing_left_to_do(made):
    home, folder, *_ = made
    assert "Nothing is left to do" in small_homes.bench(home, folder, *GRID, *TRANSFER).stderr


def test_a_row_without_such_a_winner_is_skipped_with_its_ensembles(made):
    home, folder, *_ = made
    other = plan(home, folder, "--adapters", "id,mlp,id+mlp", *TRANSFER).stdout
    assert "in the newest table of toy under this protocol, no finished search of this row" in other
    assert "its part mlp is skipped" in other
    otherwise = plan(home, folder, *GRID, *TRANSFER, "--keep-seen").stdout
    assert otherwise.count("in the newest table of toy under this protocol, no finished search of this row") == len(
        SEARCHED
    )
    assert "cells are trained" not in otherwise


def test_shared_parameters_need_a_search(made):
    home, folder, *_ = made
    for trials, word in (("0", "no search trials"), ("1", "1 search trial.")):
        refused = plan(home, folder, *GRID, "--warm-start", "shared", "--trials", trials)
        assert refused.returncode == 2
        assert word in refused.stderr
        assert "Add --trials 5" in refused.stderr


def test_all_rows_come_from_one_table_and_a_shorter_search_is_named(tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    small_homes.bench(home, folder, "--adapters", "id,svd", "--trials", "4")
    small_homes.bench(home, folder, "--adapters", "linear", "--trials", "2")
    small_homes.bench(home, folder, "--adapters", "id,mlp", "--trials", "2", "--epochs", "1")
    chosen = plan(home, folder, "--adapters", "id,svd,linear,mlp", *TRANSFER).stdout
    assert chosen.count("no finished search of this row") == 2, "svd and linear have another table"
    small_homes.bench(home, folder, "--adapters", "id", "--trials", "1", "--max-history", "6")
    small_homes.bench(home, folder, "--adapters", "id,svd,linear", "--trials", "2")
    printed = small_homes.bench(home, folder, "--adapters", "id,svd,linear,mlp", *TRANSFER).stdout
    assert "no search (winners of 2 trials on toy)" in printed, "the newest plan of each row, in a table with searches"
    small_homes.bench(home, folder, "--adapters", "id", "--trials", "4")
    printed = small_homes.bench(home, folder, "--adapters", "id,svd,linear", *TRANSFER).stdout
    assert "no search (winners of 2 or 4 trials on toy)" in printed
    assert [line for line in printed.splitlines() if " svd " in line and "‡" in line]


def test_winners_of_unlike_searches_have_tables_of_their_own(tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    small_homes.bench(home, folder, "--adapters", "svd", "--trials", "2")
    assert " svd " in small_homes.bench(home, folder, "--adapters", "svd", *TRANSFER).stdout
    small_homes.bench(home, folder, "--adapters", "linear", "--trials", "2", "--epochs", "1")
    printed = small_homes.bench(home, folder, "--adapters", "linear", *TRANSFER).stdout
    assert " linear " in printed
    assert " svd " not in printed, "its search had other epochs"


def test_transferred_winners_and_searched_rows_have_tables_of_their_own(tmp_path):
    folder, other, home = make_dataset(tmp_path / "toy"), make_dataset(tmp_path / "other", seed=1), tmp_path / "home"
    small_homes.bench(home, folder, "--adapters", "id,svd", "--trials", "2")
    small_homes.bench(home, other, "--adapters", "id,svd", "--trials", "2", "--warm-start", "toy")
    printed = small_homes.bench(home, other, "--adapters", "id", "--trials", "0", "--warm-start", "toy").stdout
    assert not [line for line in printed.splitlines() if " svd " in line]


def test_a_bench_that_searches_the_source_of_its_warm_start_further_has_nothing_left_to_do_the_second_time(tmp_path):
    """The other data set's searches begin with what the source had found before this bench."""
    both = [make_dataset(tmp_path / name, seed=seed) for seed, name in enumerate(("toy", "other"))]
    home, words = tmp_path / "home", ["--adapters", "id,svd,id+svd", "--backbones", "sasrec"]
    small_homes.bench(home, both[0], *words, "--trials", "3")
    further = [",".join(map(str, both)), *words, "--trials", "5", "--warm-start", "toy"]
    assert "start with the best configurations on toy" in small_homes.bench(home, *further).stderr
    launches = len(events(home, "launched"))
    assert "Nothing is left to do" in small_homes.bench(home, *further).stderr
    assert len(events(home, "launched")) == launches, "the launch is on record, with its ensembles"
    refused = command(home, "reproduce", "other/none/sasrec/id", "--search")
    assert refused.returncode == 2
    assert "began with configurations of other searches (--warm-start)" in refused.stderr
    assert "omit --search" in refused.stderr
