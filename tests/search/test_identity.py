"""What a trial's identity depends on, and what it must not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import small_homes
from dataset_files import make_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import registry
from harness.record.ledger import Ledger
from harness.search import axes, plan, spaces
from harness.types import BUDGETS, Engine, PrepSpec, Protocol
from harness.workflows import run_bench

ADAPTERS, BACKBONES = ("id", "svd", "mlp", "linear"), ("sasrec", "gru4rec")
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("identity")
    return root, make_dataset(root / "toy")


def request(home, folder, **changes):
    given = {"adapters": ",".join(ADAPTERS), "backbones": ",".join(BACKBONES), "encoders": "noise"}
    return plan.Request(home, str(folder), prep=PrepSpec(kcore=0), **given | changes)


def ids(asked):
    """Study id and id of the default trial of every cell, by backbone and adapter."""
    studies = plan.make(asked, Ledger()).studies
    params = [study.space.default for study in studies]
    return {
        (s.cell.dataset, s.cell.backbone, s.cell.adapter): (s.id, s.trial("search", 0, p).id)
        for s, p in zip(studies, params, strict=True)
    }


def of_set(found):
    return {key[1:]: value for key, value in found.items()}


@FEW
@given(st.permutations(ADAPTERS), st.permutations(BACKBONES), st.sampled_from(["home", "a/b/other home", "é"]))
def test_neither_order_of_selection_nor_the_home_changes_an_identity(place, adapters, backbones, name):
    root, folder = place
    asked = request(root / name, folder, adapters=",".join(adapters), backbones=",".join(backbones))
    assert ids(asked) == ids(request(root / "home", folder))


def test_neither_path_nor_name_of_a_data_set_nor_later_files_change_an_identity(place, tmp_path):
    root, folder = place
    copy = shutil.copytree(folder, tmp_path / "quite" / "elsewhere")
    (copy / "dataset.toml").write_text('name = "renamed"\nlicence = "MIT"\n')
    (copy / "notes.txt").write_text("nothing of the data")
    assert of_set(ids(request(tmp_path, copy))) == of_set(ids(request(root / "home", folder)))


def test_an_added_data_set_adapter_or_backbone_leaves_the_others_as_they_were(place, tmp_path):
    root, folder = place
    second = make_dataset(tmp_path / "second", seed=5)
    before = ids(request(root / "home", folder))
    grown = request(root / "home", f"{folder},{second}", adapters="all", backbones="all")
    after = ids(grown)
    assert before.items() <= after.items()
    assert len({study for study, _ in after.values()}) == len(after), "no two cells are one study"


@FEW
@given(st.integers(1, 1000), st.integers(1, 20), st.integers(0, 9))
def test_more_trials_or_seeds_are_the_same_study(place, trials, seeds, extra):
    root, folder = place
    budget = replace(BUDGETS["quick"], trials=trials, seeds=seeds, name=f"mine{extra}")
    assert ids(request(root / "home", folder, budget=budget)) == ids(request(root / "home", folder))


@FEW
@given(st.data())
def test_every_value_that_a_result_depends_on_changes_the_trial(place, data):
    root, folder = place
    study = plan.make(request(root / "home", folder), Ledger()).studies[-1]
    trial = study.trial("search", 0, study.space.default)
    name = data.draw(st.sampled_from(sorted(trial.params)))
    value = trial.params[name]
    other = {**trial.params, name: f"{value}x" if isinstance(value, str) else (value or 0) + 1}
    changed = [
        replace(trial, params=other),
        replace(trial, params={k: v for k, v in trial.params.items() if k != name}),
        replace(trial, seed=data.draw(st.integers(1, 99))),
        replace(trial, epochs=trial.epochs + data.draw(st.integers(1, 99))),
        replace(trial, patience=trial.patience + 1),
        replace(trial, role="confirm"),
        replace(trial, protocol=Protocol(split="gts")),
        replace(trial, protocol=Protocol(filter_seen=False)),
        replace(trial, inputs=replace(trial.inputs, data="another")),
        replace(trial, inputs=replace(trial.inputs, embedding="another")),
        replace(trial, cell=replace(trial.cell, adapter="id")),
        replace(trial, cell=replace(trial.cell, backbone="hstu")),
    ]
    assert len({trial.id, *(t.id for t in changed)}) == len(changed) + 1
    same = replace(trial, cell=replace(trial.cell, dataset="renamed", encoder="renamed"))
    shuffled = replace(trial, params=dict(data.draw(st.permutations(list(trial.params.items())))))
    assert {same.id, shuffled.id} == {trial.id}


CHANGES = {
    "protocol": {"protocol": Protocol(split="gts")},
    "epochs": {"budget": replace(BUDGETS["quick"], epochs=9)},
    "patience": {"budget": replace(BUDGETS["quick"], patience=9)},
    "sampler": {"engine": Engine("random", "median")},
    "encoder": {"encoders": "shuffled:noise"},
    "text": {"text": "{title}!"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_request_is_another_study(place, change):
    root, folder = place
    before, after = ids(request(root / "home", folder)), ids(request(root / "home", folder, **CHANGES[change]))
    touched = {key for key in before if key[1] != "none"}
    if change in ("encoder", "text"):
        touched = {key for key in touched if key[2] != "id"}  # which reads no text
    assert touched
    for key in touched:
        assert after[key][0] != before[key][0], key
        if change != "sampler":  # how a point was found does not change what it comes to
            assert after[key][1] != before[key][1], key


def test_one_changed_event_is_another_data_set(place, tmp_path):
    root, folder = place
    copy = shutil.copytree(folder, tmp_path / "toy")
    events = pl.read_parquet(copy / "interactions.parquet")
    first = pl.int_range(pl.len()) == 0
    events.with_columns(pl.when(first).then(pl.col("timestamp") - 1).otherwise("timestamp")).write_parquet(
        copy / "interactions.parquet"
    )
    before, after = ids(request(root / "home", folder)), ids(request(tmp_path, copy))
    assert all(after[key][0] != before[key][0] and after[key][1] != before[key][1] for key in before)


def _raised(schema):
    return replace(schema, attributes=schema.attributes | {"version": 99})


@pytest.mark.parametrize(
    ("package", "name"), [("adapters", "svd"), ("backbones", "gru4rec"), (registry.LOSSES, "softmax")]
)
def test_a_raised_version_of_a_component_changes_its_cells_alone(place, monkeypatch, package, name):
    root, folder = place
    before, read = ids(request(root / "home", folder)), registry.schema
    raised = lambda p, n: _raised(read(p, n)) if (p, n) == (package, name) else read(p, n)  # noqa: E731
    monkeypatch.setattr(registry, "schema", raised)
    after = ids(request(root / "home", folder))
    changed = {key for key in before if before[key] != after[key]}
    uses = {key for key in before if key[1] != "none" and (name in key or package == registry.LOSSES)}
    assert changed == uses


RECORDED = Path(__file__).parents[1] / "golden" / "ledgers" / "schema-1-core-3.jsonl"
RANGES = {  # those of its launch, which the shipped ones have left
    "train.lr": axes.Range(3e-4, 1e-2, log=True),
    "train.weight_decay": axes.Range(1e-7, 1e-3, log=True),
}


def test_a_recorded_ledger_stays_done(tmp_path):
    """No refactoring, move or rename may change an identity: every result on record would be trained again.

    Only a deliberate change of what is computed may (a raised `version` or CORE_VERSION, a new default); then
    UPDATE_GOLDEN=1 writes a new recording. It keeps one that is still done.
    """
    home, folder = tmp_path / "home", make_dataset(tmp_path / "toy")
    (home / "ledger").mkdir(parents=True)
    source = spaces.SpaceSource(fixed=small_homes.SMALL, ranges=RANGES)
    cells = {"adapters": "id,svd,spectran", "backbones": "sasrec,gru4rec"}
    asked = small_homes.request(home, folder, **cells, engine=Engine("tpe"), spaces=source)
    kept = home / "ledger" / "20260101T000000-recorded.jsonl"
    kept.write_bytes(RECORDED.read_bytes())
    grid = plan.make(asked, Ledger.open(home))
    if os.environ.get("UPDATE_GOLDEN") and grid.pending:
        kept.unlink()
        small_homes.run(asked)
        (written,) = (home / "ledger").glob("*.jsonl")
        RECORDED.write_bytes(written.read_bytes())
        grid = plan.make(asked, Ledger.open(home))
    assert {(study.cell.backbone, study.cell.adapter): study.state for study in grid.studies} == {
        (study.cell.backbone, study.cell.adapter): "done" for study in grid.studies
    }
    assert grid.counts()["to_run"] == 0
    assert run_bench.remarks(grid) == []


def test_a_table_of_another_sampler_is_named_before_a_new_one_begins(tmp_path):
    """A bench without --sampler in a home from the time of another default would search again without a word."""
    home, folder = tmp_path / "home", make_dataset(tmp_path / "toy")
    asked = small_homes.request(home, folder, "id")
    assert run_bench.remarks(plan.make(asked, Ledger.open(home))) == []
    small_homes.run(replace(asked, engine=Engine("tpe")))
    (line,) = run_bench.remarks(plan.make(asked, Ledger.open(home)))
    assert "--sampler tpe continues the old table" in line
    small_homes.run(asked)
    assert run_bench.remarks(plan.make(asked, Ledger.open(home))) == []


def test_a_search_in_other_ranges_is_named_before_it_is_repeated(tmp_path):
    home, folder = tmp_path / "home", make_dataset(tmp_path / "toy")
    asked = small_homes.request(home, folder, "id", budget=replace(small_homes.BUDGET, trials=2))
    small_homes.run(replace(asked, spaces=replace(asked.spaces, ranges=RANGES)))
    (line,) = run_bench.remarks(plan.make(asked, Ledger.open(home)))
    older = "train.lr 0.0003 … 0.01 log, train.weight_decay 1e-07 … 0.001 log"
    assert line.startswith(f"Note: 1 cell was searched here in other ranges ({older}) and will be searched again")
    (spaces_folder := tmp_path / "older").mkdir()
    ranges = "lr = { low = 3e-4, high = 1e-2, log = true }\nweight_decay = { low = 1e-7, high = 1e-3, log = true }\n"
    (spaces_folder / "train.toml").write_text(ranges)
    continued = plan.make(replace(asked, spaces=replace(asked.spaces, folder=spaces_folder)), Ledger.open(home))
    assert (continued.counts()["to_run"], run_bench.remarks(continued)) == (0, [])
    pinned = replace(asked.spaces, fixed=asked.spaces.fixed | {"train.lr": 0.003, "train.weight_decay": 0.0})
    assert run_bench.remarks(plan.make(replace(asked, spaces=pinned), Ledger.open(home))) == []
    small_homes.run(asked)
    assert run_bench.remarks(plan.make(asked, Ledger.open(home))) == []


@pytest.mark.parametrize(("trials", "says"), [(1, False), (2, True)])
def test_parameters_drawn_at_random_are_named_for_searches_only(tmp_path, trials, says):
    """SpecTran's `text.id_std` is searched under a condition, which a Gaussian process does not model."""
    folder = make_dataset(tmp_path / "toy")
    budget = replace(small_homes.BUDGET, trials=trials)
    asked = small_homes.request(tmp_path / "home", folder, "spectran", budget=budget, engine=Engine("gp"))
    grid = plan.make(asked, Ledger.open(tmp_path / "home"))
    assert bool(grid.drawn_at_random()) == any("drawn at random" in line for line in run_bench.remarks(grid)) == says
