"""Options of the training menu in a search space: part of an identity only where they are not at their default."""

from pathlib import Path

import pytest
from command_line import harness
from dataset_files import make_dataset

from harness import registry
from harness.record.ledger import Ledger
from harness.search import plan, spaces
from harness.training import schedules
from harness.types import Cell, HarnessError, PrepSpec

ID = Cell("toy", "none", "sasrec", "id")
# Never to change: recorded identities imply them.
LATER = {"schedule": "constant", "warmup": 0.05, "ema": 0.0, "compile": "none"}
LOSSES = {
    "softmax": {"label_smoothing": 0.0, "kernel": "fused"},
    "sampled_softmax": {"alpha": 0.0, "logq": False},
    "infonce": {"alpha": 0.0, "logq": False},
    "bce": {"alpha": 0.0},
    "gbce": {},
}


def space_of(**fixed):
    source = spaces.SpaceSource(fixed={name.replace("__", "."): value for name, value in fixed.items()})
    source.check()
    return spaces.of_cell(ID, source)


def with_train_file(folder: Path, text: str, **fixed):
    folder.mkdir(exist_ok=True)
    (folder / "train.toml").write_text(text)
    source = spaces.SpaceSource(folder, {name.replace("__", "."): value for name, value in fixed.items()})
    source.check()
    return spaces.of_cell(ID, source)


def of_train(names):
    return {name for name in names if name.startswith("train.")}


def test_the_defaults_that_identities_imply_are_these_for_ever():
    assert schedules.DEFAULTS == LATER
    for name, implied in LOSSES.items():
        schema = registry.schema(registry.LOSSES, name)
        kept = [p for p in schema.attributes.get("implied", ()) if p in schema.params]
        assert {p: schema.params[p] for p in kept} == implied


@pytest.mark.parametrize("loss", LOSSES)
def test_options_at_their_default_are_in_no_identity(loss):
    plain = space_of(train__loss=loss)
    explicit = {f"train__{name}": value for name, value in LATER.items()}
    explicit |= {f"loss__{name}": value for name, value in LOSSES[loss].items()}
    explicit["train__ema"] = 0  # an int of the command line
    assert space_of(train__loss=loss, **explicit) == plain
    later = {key.replace("__", ".") for key in explicit}
    assert not later & (plain.default.keys() | plain.fixed.keys() | plain.to_json()["fixed"].keys())


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [
        ("softmax", "train.schedule", "one_cycle"),
        ("softmax", "train.ema", 0.99),
        ("softmax", "loss.label_smoothing", 0.1),
        ("bce", "loss.alpha", 0.5),
        ("infonce", "loss.alpha", 0.5),
        ("sampled_softmax", "loss.logq", True),
    ],
)
def test_an_option_at_another_value_is_in_the_identity_of_study_and_trial(loss, name, value):
    plain, changed = space_of(train__loss=loss), space_of(**{"train.loss": loss, name: value})
    assert changed.fixed == plain.fixed | {name: value}
    assert changed.default == plain.default | {name: value}
    assert changed.to_json() != plain.to_json()


def test_all_cells_of_a_bench_share_the_menu(tmp_path):
    folder = make_dataset(tmp_path / "toy")
    cells = {"adapters": "id,linear,spectran", "backbones": "sasrec,gru4rec", "encoders": "noise"}
    ids = {}
    for given in ({}, {"train.schedule": "warmup_cosine", "train.ema": 0.9}):
        asked = plan.Request(
            tmp_path, str(folder), prep=PrepSpec(kcore=0), spaces=spaces.SpaceSource(fixed=given), **cells
        )
        studies = [s for s in plan.make(asked, Ledger()).studies if not s.cell.is_baseline]
        assert len(studies) == 6
        assert all(given.items() <= study.trial("search", 0, study.space.default).params.items() for study in studies)
        ids[len(given)] = {study.id for study in studies}
    assert not ids[0] & ids[2]


def test_an_option_can_be_searched_with_its_condition(tmp_path):
    text = 'schedule = { choices = ["constant", "warmup_cosine"] }\n'
    text += 'warmup = { low = 0.01, high = 0.2, when = { schedule = ["warmup_cosine"] } }\n'
    space = with_train_file(tmp_path / "spaces", text)
    assert of_train(space.searched) == {"train.schedule", "train.warmup"}
    assert space.default["train.schedule"] == "constant"
    assert space.conditional({"train.schedule": "warmup_cosine"}).keys() == {"train.warmup"}
    assert space.conditional({"train.schedule": "constant"}) == {}
    pinned = with_train_file(tmp_path / "spaces", text, train__schedule="constant")
    assert of_train(pinned.searched) == set()
    assert not {"train.schedule", "train.warmup"} & pinned.default.keys()
    fixed = with_train_file(tmp_path / "spaces", text, train__schedule="warmup_cosine")
    assert of_train(fixed.searched) == {"train.warmup"}


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_warm_up_that_nothing_reads_is_refused(tmp_path, schedule):
    message = f"train.warmup is set, but train.schedule is {schedule}"
    with pytest.raises(HarnessError, match=message):
        space_of(train__warmup=0.1, train__schedule=schedule)
    with pytest.raises(HarnessError, match=message):
        with_train_file(tmp_path / "spaces", f'warmup = {{ low = 0.0, high = 0.1 }}\nschedule = "{schedule}"')
    assert space_of(train__warmup=0.1, train__schedule="warmup_cosine").fixed["train.warmup"] == 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.schedule=cosine"], "train.schedule = 'cosine' is out of range; the parameter is one of constant, "),
        (["train.ema=1.0"], "train.ema = 1.0 is out of range; the parameter is a float >= 0 and < 1."),
        (["train.warmup=-0.1"], "train.warmup = -0.1 is out of range; the parameter is a float >= 0 and < 1."),
        (["train.warmup=0.2"], "train.warmup is set, but train.schedule is constant"),
        (["train.shedule=constant"], "not a shared parameter. Did you mean 'train.schedule'?"),
        (["loss.label_smoothing=1.0"], "loss.label_smoothing = 1.0 is out of range; the parameter is a float >= 0"),
        (["loss.label_smoothing=0.1", "train.loss=bce"], "not a shared parameter of a bench with loss bce."),
        (["loss.label_smoothing=0.1", "train.loss=gbce"], "not a shared parameter of a bench with loss gbce."),
        (["loss.logq=true", "train.loss=bce"], "not a shared parameter of a bench with loss bce."),
        (["loss.alpha=0.5"], "not a shared parameter of a bench with loss softmax."),
        (["loss.alpha=0.5", "train.loss=gbce"], "not a shared parameter of a bench with loss gbce."),
        (["loss.alpha=2.0", "train.loss=bce"], "loss.alpha = 2.0 is out of range; the parameter is a float >= 0"),
        (["loss.logq=1", "train.loss=infonce"], "loss.logq = 1 is an int; the parameter is a bool."),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, words, message):
    folder = make_dataset(tmp_path / "toy")
    sets = [part for word in words for part in ("--set", word)]
    result = harness(tmp_path, "plan", "--datasets", str(folder), "--adapters", "id", "--kcore", "0", *sets)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
