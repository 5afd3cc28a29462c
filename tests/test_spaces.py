from dataclasses import replace

import pytest

from harness import plan, registry, spaces
from harness.types import Cell, HarnessError

MLP = Cell("toy", "minilm", "sasrec", "mlp")
SCHEMA = registry.schema


def source(tmp_path, file="adapters/mlp.toml", text=""):
    path = tmp_path / "spaces" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return spaces.Source(tmp_path / "spaces")


@pytest.mark.parametrize("adapter", registry.names(registry.ADAPTERS))
@pytest.mark.parametrize("backbone", registry.names(registry.BACKBONES))
def test_every_shipped_space_is_valid_and_holds_its_default(adapter, backbone):
    space = spaces.of_cell(Cell("toy", "minilm", backbone, adapter), spaces.Source())
    assert set(space.default) == set(space.fixed) | set(space.searched)
    for name, axis in space.searched.items():
        assert axis.holds(space.default[name])
        assert axis.distribution()._contains(axis.distribution().to_internal_repr(space.default[name]))


@pytest.mark.parametrize("adapter", registry.names(registry.ADAPTERS))
def test_no_adapter_is_searched_along_more_than_eight_axes_its_seam_included(adapter):
    space = spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), spaces.Source())
    assert len([name for name in space.searched if name.startswith(("adapter.", "text."))]) <= 8


TAKES_PREPROCESS = [n for n in registry.names("adapters") if "preprocess" in registry.schema("adapters", n).params]


@pytest.mark.parametrize("adapter", TAKES_PREPROCESS)
def test_preprocessing_is_searched_wherever_a_method_leaves_it_open(adapter):
    space = spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), spaces.Source())
    assert set(space.searched["adapter.preprocess"].values) == {"raw", "center", "whiten"}


def test_the_id_control_has_no_text_parameters():
    space = spaces.of_cell(Cell("toy", "none", "sasrec", "id"), spaces.Source())
    assert not [name for name in space.default if name.startswith("text.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hiden = 3", "adapters/mlp.toml: mlp has no parameter 'hiden'. Did you mean 'hidden'? It takes: "),
        ("hidden = [", "adapters/mlp.toml is not valid TOML"),
        ("hidden = 'wide'", "hidden = 'wide' is a str; the parameter is a int"),
        ("hidden = { low = 1 }", "hidden: a search range is"),
        ("hidden = { low = 900, high = 1000 }", "lies outside 900 … 1000"),
        ("dropout = { low = 0.0, high = 0.3, log = true }", "a log range starts above 0"),
        ("hidden = { choices = [] }", "hidden: a search range is"),
        ("dropout = { low = 0.9, high = 0.1 }", "low 0.9 lies above high 0.1"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(HarnessError) as caught:
        spaces.of_cell(MLP, source(tmp_path, text=text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_ones_own_goes_before_the_shipped_files(tmp_path):
    space = spaces.of_cell(MLP, source(tmp_path, text="hidden = 32"))
    assert space.fixed["adapter.hidden"] == 32
    assert "train.lr" in space.searched


def test_the_loss_and_its_parameters_are_part_of_every_cell():
    assert spaces.of_cell(MLP, spaces.Source()).fixed["train.loss"] == "softmax"
    space = spaces.of_cell(MLP, spaces.Source(fixed={"train.loss": "sampled-softmax", "loss.m": 64}))
    assert (space.fixed["train.loss"], space.default["loss.m"]) == ("sampled_softmax", 64)
    assert {name for name in space.default if name.startswith("loss.")} == {"loss.m"}
    searched = spaces.of_cell(MLP, spaces.Source(fixed={"train.loss": "infonce"})).searched
    assert searched["loss.tau"].holds(0.07)
    pinned = spaces.of_cell(MLP, spaces.Source(fixed={"train.loss": "infonce", "loss.tau": 1}))
    assert pinned.fixed["loss.tau"] == 1.0
    assert "loss.tau" not in pinned.searched


@pytest.mark.parametrize("text", ['loss = { choices = ["softmax", "bce"] }', "loss = { low = 1, high = 2 }"])
def test_the_loss_is_never_searched(tmp_path, text):
    origin = source(tmp_path, "train.toml", text)
    for load in (lambda: spaces.of_cell(MLP, origin), origin.check):
        with pytest.raises(HarnessError, match=r"train.toml: loss is one name for all cells, never searched. Known:"):
            load()


def test_a_loss_of_ones_own_folder_is_the_loss_of_all_its_cells(tmp_path):
    origin = source(tmp_path, "train.toml", 'loss = "bce"')
    source(tmp_path, "losses/bce.toml", "m = { low = 1, high = 9 }")
    assert spaces.of_cell(MLP, origin).searched["loss.m"].high == 9


def test_the_version_of_the_loss_is_part_of_what_a_result_depends_on():
    cell, baseline = Cell("toy", "minilm", "sasrec[n_heads=1]", "mlp"), Cell("toy", "none", "none", "popularity")
    plain, other = (plan._versions(cell, spaces.Source(fixed=f)) for f in ({}, {"train.loss": "bce"}))
    assert plain["harness.losses"] == registry.schema(registry.LOSSES, "softmax").version
    assert set(plain) == set(other) == {"core", "adapters", "backbones", "harness.losses"}
    assert "harness.losses" not in plan._versions(baseline, spaces.Source())


def test_brackets_and_pins_fix_parameters():
    cell = Cell("toy", "minilm", "sasrec[n_heads=1]", "mlp[hidden=64,fusion=none]")
    space = spaces.of_cell(cell, spaces.Source(fixed={"train.d": 32, "train.lr": 0.01}))
    assert space.fixed | {"adapter.hidden": 64, "backbone.n_heads": 1, "text.fusion": "none"} == space.fixed
    assert (space.fixed["train.d"], space.default["train.lr"]) == (32, 0.01)
    assert "train.lr" not in space.searched


@pytest.mark.parametrize(
    ("adapter", "pins", "message"),
    [
        ("mlp[hiden=3]", {}, "mlp[...]: there is no parameter 'hiden'. Did you mean 'hidden'?"),
        ("mlp[hidden=wide]", {}, "mlp[hidden] = 'wide' is a str"),
        ("mlp", {"train.rl": 1}, "--set train.rl: no shared parameter. Did you mean 'train.lr'?"),
        ("mlp", {"train.loss": "gbcee"}, "losses has no 'gbcee'. Did you mean 'gbce'? Known: bce, gbce"),
        ("mlp", {"train.loss": 3}, "train.loss = 3 is a int; the parameter is a str"),
        ("mlp", {"train.loss": "infonce", "loss.tua": 1}, "of a bench whose loss is infonce. Did you mean 'loss.tau'?"),
        ("mlp", {"loss.tau": 0.1}, "--set loss.tau: no shared parameter of a bench whose loss is softmax."),
        ("mlp", {"train.loss": "gbce", "loss.t": "high"}, "gbce[t] = 'high' is a str; the parameter is a float"),
    ],
)
def test_wrong_overrides_are_one_clear_line(adapter, pins, message):
    def load():
        origin = spaces.Source(fixed=pins)
        origin.check()
        return spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), origin)

    with pytest.raises(HarnessError) as caught:
        load()
    assert message in str(caught.value)


CONDITION = 'activation = {{ choices = ["gelu", "relu"] }}\ndropout = {{ low = 0.0, high = 0.3, when = {} }}'


def with_condition(folder, condition, adapter="mlp"):
    (folder / "adapters").mkdir(exist_ok=True)
    (folder / "adapters" / "mlp.toml").write_text(CONDITION.format(condition))
    return spaces.of_cell(Cell("toy", "noise", "sasrec", adapter), spaces.Source(folder))


def test_a_conditional_parameter_is_searched_only_where_its_condition_holds(tmp_path):
    space = with_condition(tmp_path, '{ activation = ["relu"] }')
    assert "adapter.dropout" not in space.free()
    assert "adapter.dropout" in space.conditional({**space.default, "adapter.activation": "relu"})
    assert "adapter.dropout" not in space.conditional({**space.default, "adapter.activation": "gelu"})


@pytest.mark.parametrize(("activation", "searched"), [("relu", True), ("gelu", False)])
def test_a_condition_on_a_fixed_parameter_is_settled_at_once(tmp_path, activation, searched):
    space = with_condition(tmp_path, '{ activation = ["relu"] }', f"mlp[activation={activation}]")
    assert ("adapter.dropout" in space.free()) is searched
    assert ("adapter.dropout" in space.fixed) is not searched


def test_the_condition_is_part_of_what_makes_two_spaces_the_same(tmp_path):
    one, other = (with_condition(tmp_path, f'{{ activation = ["{a}"] }}') for a in ("relu", "gelu"))
    assert one.to_json() != other.to_json()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('{ activatoin = ["relu"] }', "Did you mean 'activation'"),
        ('{ activation = "relu" }', "a condition is when"),
        ("{}", "a condition is when"),
        ('"relu"', "a condition is when"),
        ("{ dropout = [0.1] }", "conditions do not chain"),
    ],
)
def test_a_wrong_condition_is_one_clear_line(tmp_path, condition, message):
    with pytest.raises(HarnessError, match=message):
        with_condition(tmp_path, condition)


def test_a_method_that_joins_text_and_id_itself_has_no_fusion_to_search(tmp_path, monkeypatch):
    schema = registry.schema(registry.ADAPTERS, "mlp")
    fusing = replace(schema, attributes=schema.attributes | {"fuses": True})
    monkeypatch.setattr(registry, "schema", lambda package, name: fusing if name == "mlp" else SCHEMA(package, name))
    space = spaces.of_cell(Cell("toy", "noise", "sasrec", "mlp"), spaces.Source(fixed={"text.fusion": "gate"}))
    assert space.fixed["text.fusion"] == "none"
    assert not {"text.fusion", "text.id_std"} & set(space.searched)
    with pytest.raises(HarnessError, match="joins text and ID itself"):
        spaces.of_cell(Cell("toy", "noise", "sasrec", "mlp[fusion=add]"), spaces.Source())
