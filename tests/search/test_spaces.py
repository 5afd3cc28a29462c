import shutil
from dataclasses import replace

import pytest

from harness import registry
from harness.search import axes, grids, plan, spaces
from harness.types import Cell, HarnessError

MLP = Cell("toy", "minilm", "sasrec", "mlp")
SCHEMA = registry.schema


def source(tmp_path, file="adapters/mlp.toml", text=""):
    path = tmp_path / "spaces" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return spaces.SpaceSource(tmp_path / "spaces")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("linear.toml", "linear.toml is not read. Did you mean adapters/linear.toml?"),
        ("adapters/linear-whiten.toml", "Did you mean adapters/linear_whiten.toml?"),
        ("trian.toml", "Did you mean train.toml?"),
        ("baselines/popularity.toml", "baselines/popularity.toml is not read."),
        ("train.yaml", "the folder has no search space, such as train.toml"),
    ],
)
def test_a_file_of_a_space_that_would_not_be_read_is_named(tmp_path, file, said):
    with pytest.raises(HarnessError) as caught:
        source(tmp_path, file, "no TOML").check()
    assert said in str(caught.value)


def test_a_copy_of_the_shipped_spaces_is_a_folder_of_spaces(tmp_path):
    shutil.copytree(registry.folder_of("search_spaces"), tmp_path / "spaces")
    spaces.SpaceSource(tmp_path / "spaces").check()


@pytest.mark.parametrize("adapter", registry.names(registry.ADAPTERS))
@pytest.mark.parametrize("backbone", registry.names(registry.BACKBONES))
def test_every_shipped_space_is_valid_and_holds_its_default(adapter, backbone):
    space = spaces.of_cell(Cell("toy", "minilm", backbone, adapter), spaces.SpaceSource())
    assert set(space.default) == set(space.fixed) | set(space.searched)
    for name, axis in space.searched.items():
        assert axis.holds(space.default[name])
        assert axis.distribution()._contains(axis.distribution().to_internal_repr(space.default[name]))


@pytest.mark.parametrize("adapter", registry.names(registry.ADAPTERS))
def test_no_adapter_is_searched_along_more_than_eight_axes_its_seam_included(adapter):
    space = spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), spaces.SpaceSource())
    assert len([name for name in space.searched if name.startswith(("adapter.", "text."))]) <= 8


TAKES_PREPROCESS = [n for n in registry.names("adapters") if "preprocess" in registry.schema("adapters", n).params]


@pytest.mark.parametrize("adapter", TAKES_PREPROCESS)
def test_preprocessing_is_searched_wherever_a_method_leaves_it_open(adapter):
    space = spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), spaces.SpaceSource())
    assert set(space.searched["adapter.preprocess"].values) == {"raw", "center", "whiten"}


def test_the_id_control_has_no_text_parameters():
    space = spaces.of_cell(Cell("toy", "none", "sasrec", "id"), spaces.SpaceSource())
    assert not [name for name in space.default if name.startswith("text.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hiden = 3", "adapters/mlp.toml: mlp has no parameter 'hiden'. Did you mean 'hidden'? It takes: "),
        ("hidden = [", "adapters/mlp.toml is not valid TOML"),
        ("hidden = 'wide'", "hidden = 'wide' is a str; the parameter is an int >= 1 and <= 65536"),
        ("hidden = { low = 1 }", "hidden: a search range is"),
        ("hidden = { low = 900, high = 1000 }", "is outside 900 … 1000"),
        ("dropout = { low = 0.0, high = 0.3, log = true }", "a log range must start above 0"),
        ("hidden = { choices = [] }", "hidden: a search range is"),
        ("dropout = { low = 0.9, high = 0.1 }", "low 0.9 is above high 0.1"),
        ("hidden = 0", "hidden = 0 is out of range; the parameter is an int >= 1 and <= 65536"),
        ("hidden = true", "hidden = True is a bool; the parameter is an int"),
        ("hidden = 64.0", "hidden = 64.0 is a float; the parameter is an int"),
        (f"hidden = 1{'0' * 99}", "hidden = 1000000000000000000000000000000000000... is out of range"),
        pytest.param(f"hidden = 1{'0' * 4400}", "is not valid TOML: Exceeds the limit", id="digits"),
        ("hidden = 2024-01-01", "is a date; the parameter is an int"),
        ("dropout = 1.0", "dropout = 1.0 is out of range; the parameter is a float >= 0 and < 1"),
        ("dropout = -0.1", "dropout = -0.1 is out of range"),
        ("dropout = nan", "dropout = nan is out of range"),
        ("dropout = inf", "dropout = inf is out of range"),
        ("dropout = 1e400", "dropout = inf is out of range"),
        ("dropout = '0.1'", "dropout = '0.1' is a str; the parameter is a float"),
        ("activation = 'tanh'", "activation = 'tanh' is out of range; the parameter is one of gelu, relu"),
        ("activation = 1", "activation = 1 is an int; the parameter is one of gelu, relu"),
        ("hidden = { choices = [true, 256] }", "hidden: choice = True is a bool; the parameter is an int"),
        ("hidden = { choices = [256, 'x'] }", "hidden: choice = 'x' is a str; the parameter is an int"),
        ("hidden = { choices = [256, 128.0] }", "hidden: choice = 128.0 is a float"),
        ("hidden = { choices = [256, 0] }", "hidden: choice = 0 is out of range"),
        ("hidden = { choices = [256, [64]] }", "hidden: choice = [64] is a list"),
        ("hidden = { choices = [256, 256] }", "hidden: the choice 256 is repeated"),
        ("hidden = { choices = 256 }", "hidden: a search range is"),
        ("activation = { choices = ['gelu', 3] }", "activation: choice = 3 is an int"),
        ("activation = { low = 'a', high = 'z' }", "has no range; use { choices = [...] }"),
        ("dropout = { choices = [0.1, true] }", "dropout: choice = True is a bool"),
        ("dropout = { choices = [0.1, nan] }", "dropout: choice = nan is out of range"),
        ("hidden = { low = 0, high = 512 }", "hidden: low = 0 is out of range"),
        ("hidden = { low = 1, high = 512.0 }", "hidden: high = 512.0 is a float"),
        ("hidden = { low = true, high = 512 }", "hidden: low = True is a bool"),
        ("dropout = { low = '0', high = 0.5 }", "dropout: low = '0' is a str"),
        ("dropout = { low = 0.0, high = 1.0 }", "dropout: high = 1.0 is out of range"),
        ("dropout = { low = nan, high = 0.5 }", "dropout: low = nan is out of range"),
        ("dropout = { low = 0.0, high = 0.5, log = 1 }", "log must be true or false, not 1"),
        ("dropout = { low = 0.0, high = 0.5, lgo = true }", "dropout: a search range is"),
        ("dropout = { low = 0.0, high = 0.5, step = 0.0 }", "step 0.0 is not above 0"),
        ("dropout = { low = 0.0, high = 0.5, step = -0.1 }", "step -0.1 is not above 0"),
        ("dropout = { low = 0.0, high = 0.5, step = nan }", "dropout: step = nan is out of range"),
        ("dropout = { low = 0.0, high = 0.5, step = 0.7 }", "step 0.7 is not above 0 and at most high - low"),
        ("hidden = { low = 64, high = 512, step = 64.0 }", "hidden: step = 64.0 is a float; the parameter is an int"),
        ("hidden = { low = 64, high = 512, step = 100 }", "the default 256 is not on a step of 64 … 512"),
        ("hidden = { low = 1, high = 512, log = true, step = 1 }", "a log range must start above 0 and has no step"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(HarnessError) as caught:
        spaces.of_cell(MLP, source(tmp_path, text=text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_len = { choices = [true, 50] }", "train.toml: max_len: choice = True is a bool"),
        ('max_len = { choices = [50, "x"] }', "train.toml: max_len: choice = 'x' is a str; the parameter is an int"),
        ('max_len = "x"', "train.toml: max_len = 'x' is a str"),
        ("max_len = [true, 50]", "train.toml: max_len = [True, 50] is a list; the parameter is an int >= 1"),
        ("lr = 0.0", "train.toml: lr = 0.0 is out of range; the parameter is a finite float > 0"),
        ("lr = inf", "train.toml: lr = inf is out of range"),
        ("d = 0", "train.toml: d = 0 is out of range"),
        ("precision = 'float16'", "the parameter is one of float32, bfloat16"),
    ],
)
def test_a_wrong_value_of_a_shared_parameter_is_refused_when_the_space_is_read(tmp_path, text, message):
    with pytest.raises(HarnessError) as caught:
        spaces.of_cell(MLP, source(tmp_path, "train.toml", text))
    assert message in str(caught.value)


def test_a_parameter_whose_default_is_none_is_fixed_and_not_searched(tmp_path):
    cell = Cell("toy", "minilm", "sasrec", "spectran")
    for axis in ("{ choices = [64, 128] }", "{ low = 64, high = 128 }"):
        with pytest.raises(HarnessError, match=r"rank: its default is None, .* it can be fixed, not searched"):
            spaces.of_cell(cell, source(tmp_path, "adapters/spectran.toml", f"rank = {axis}"))
    space = spaces.of_cell(cell, source(tmp_path, "adapters/spectran.toml", "rank = 64"))
    assert space.fixed["adapter.rank"] == 64


def test_whole_numbers_among_the_choices_of_a_float_are_floats(tmp_path):
    """Else the default 1.0 and the drawn 1 would be two trials of one configuration."""
    cell = Cell("toy", "minilm", "sasrec", "svd")
    axis = spaces.of_cell(cell, source(tmp_path, "adapters/svd.toml", "power = { choices = [0, 1] }")).searched[
        "adapter.power"
    ]
    assert [repr(value) for value in axis.values] == ["0.0", "1.0"]


@pytest.mark.parametrize(
    "axis",
    [axes.Range(1e-07, 0.001, log=True), axes.Range(1, 64), axes.Range(0.1, 0.5, step=0.05), axes.Range(-1.0, 1e16)],
)
def test_a_recorded_range_is_read_as_it_was(axis):
    assert axes.recorded(str(axis)) == axis
    assert axes.recorded(f"{axis} if train.schedule is warmup_cosine") is None
    assert axes.recorded("0.5 … 0.1") is axes.recorded("constant, one_cycle") is axes.recorded("...") is None


def test_the_grid_of_a_stepped_range_stays_on_its_steps():
    axis = axes.Range(0.1, 0.5333332, step=0.1444444)
    assert all(axis.holds(value) for value in grids.values(axis))
    assert len(grids.values(axis)) == 4


def test_values_inside_the_range_are_taken_as_they_stand(tmp_path):
    space = spaces.of_cell(MLP, source(tmp_path, text="dropout = { low = 0, high = 0.5, step = 0.05 }\nhidden = 65536"))
    assert space.searched["adapter.dropout"].holds(0.15)
    assert not space.searched["adapter.dropout"].holds(0.12)
    assert space.fixed["adapter.hidden"] == 65536
    whole = spaces.of_cell(
        Cell("toy", "minilm", "sasrec", "ace"),
        source(tmp_path, "adapters/ace.toml", "softness = { low = 0, high = 100 }"),
    )
    assert not whole.searched["adapter.softness"].integer, "a range of a float is one of floats however it is written"


def test_an_optional_parameter_may_be_none_and_nothing_else_beside_its_type():
    cell = Cell("toy", "minilm", "sasrec", "spectran[rank=None]")
    assert spaces.of_cell(cell, spaces.SpaceSource()).fixed["adapter.rank"] is None
    for wrong in ("0", "x", "1.5", "true"):
        with pytest.raises(HarnessError, match=r"the parameter is an int >= 1 and <= 65536 or None"):
            spaces.of_cell(replace(cell, adapter=f"spectran[rank={wrong}]"), spaces.SpaceSource())


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("train.lr", float("inf"), "a finite float > 0"),
        ("train.lr", -1, "a finite float > 0"),
        ("train.lr", 0, "a finite float > 0"),
        ("train.lr", 10**400, "a finite float > 0"),
        ("train.d", 0, "an int >= 1 and <= 16384"),
        ("train.d", 10**30, "an int >= 1 and <= 16384"),
        pytest.param("train.d", 10**5000, "an int >= 1 and <= 16384", id="more digits than Python prints"),
        ("train.max_len", 0, "an int >= 1"),
        ("train.batch_size", -1, "an int >= 1"),
        ("train.clip_norm", 0, "a finite float > 0"),
        ("train.weight_decay", -1e-9, "a finite float >= 0"),
        ("text.fusion", "sum", "one of none, add, gate, concat"),
        ("text.out_std", 0, "a finite float > 0"),
        ("text.id_std", float("nan"), "a finite float >= 0"),
    ],
)
def test_a_pinned_value_out_of_range_names_the_option_and_what_is_allowed(name, value, allowed):
    with pytest.raises(HarnessError) as caught:
        spaces.SpaceSource(fixed={name: value}).check()
    assert str(caught.value).startswith(f"--set {name} = ")
    assert f"is out of range; the parameter is {allowed}" in str(caught.value)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("backbone", "d", "reason"),
    [
        ("sasrec", 64, ""),
        ("sasrec", 63, "sasrec: n_heads = 2 does not divide d = 63"),
        ("sasrec[n_heads=3]", 63, ""),
        ("hstu", 6, "hstu: n_heads = 4 does not divide d = 6"),
        ("hstu_time", 6, "hstu_time: n_heads = 4 does not divide d = 6"),
        ("gru4rec", 63, ""),
    ],
)
def test_heads_that_do_not_divide_d_are_found_without_building_anything(backbone, d, reason):
    source = spaces.SpaceSource(fixed={"train.d": d})
    assert spaces.conflict(Cell("toy", "minilm", backbone, "mlp"), source) == reason


@pytest.mark.parametrize(
    ("adapter", "inert"),
    [
        ("spectran", []),
        ("spectran[phi=softmax]", ["c"]),
        ("spectran[phi=none]", ["c", "d_k", "rho"]),
        ("spectran[pos=none]", ["start"]),
    ],
)
def test_an_ablation_does_not_search_what_its_switch_disables(adapter, inert):
    space = spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), spaces.SpaceSource())
    axes = {name.removeprefix("adapter.") for name in space.searched if name.startswith("adapter.")}
    assert axes == {"c", "d_k", "rho", "start", "value_power"} - set(inert)


def test_a_threshold_above_all_scores_is_out_of_range():
    with pytest.raises(HarnessError, match=r"a float >= 0 and <= 3"):
        spaces.of_cell(Cell("toy", "minilm", "sasrec", "spectran[c=4]"), spaces.SpaceSource())


def test_a_rank_below_d_is_found_without_building_anything():
    cell = Cell("toy", "minilm", "gru4rec", "spectran[rank=40]")
    assert spaces.conflict(cell, spaces.SpaceSource()) == "spectran: rank = 40 is below d = 64"
    assert spaces.conflict(cell, spaces.SpaceSource(fixed={"train.d": 40})) == ""
    assert spaces.conflict(cell, spaces.SpaceSource(fixed={"text.fusion": "concat"})) == "", (
        "the text has 32 of the 64 columns"
    )


def test_the_choices_of_shared_parameters_are_those_of_the_code_that_reads_them():
    from adapters._base import FUSIONS
    from harness.training.trial import PRECISIONS

    assert spaces.TEXT_DOMAINS["fusion"].choices == FUSIONS
    assert spaces.TRAIN_DOMAINS["precision"].choices == PRECISIONS
    for defaults, domains in (
        (spaces.TRAIN_DEFAULTS, spaces.TRAIN_DOMAINS),
        (spaces.TEXT_DEFAULTS, spaces.TEXT_DOMAINS),
    ):
        assert {name: domains[name].checked(name, value) for name, value in defaults.items()} == defaults


def test_a_folder_of_ones_own_goes_before_the_shipped_files(tmp_path):
    space = spaces.of_cell(MLP, source(tmp_path, text="hidden = 32"))
    assert space.fixed["adapter.hidden"] == 32
    assert "train.lr" in space.searched


def test_the_loss_and_its_parameters_are_part_of_every_cell():
    assert spaces.of_cell(MLP, spaces.SpaceSource()).fixed["train.loss"] == "softmax"
    space = spaces.of_cell(MLP, spaces.SpaceSource(fixed={"train.loss": "sampled-softmax", "loss.m": 64}))
    assert (space.fixed["train.loss"], space.default["loss.m"]) == ("sampled_softmax", 64)
    assert {name for name in space.default if name.startswith("loss.")} == {"loss.m"}
    searched = spaces.of_cell(MLP, spaces.SpaceSource(fixed={"train.loss": "infonce"})).searched
    assert searched["loss.tau"].holds(0.07)
    pinned = spaces.of_cell(MLP, spaces.SpaceSource(fixed={"train.loss": "infonce", "loss.tau": 1}))
    assert pinned.fixed["loss.tau"] == 1.0
    assert "loss.tau" not in pinned.searched


@pytest.mark.parametrize("text", ['loss = { choices = ["softmax", "bce"] }', "loss = { low = 1, high = 2 }"])
def test_the_loss_is_never_searched(tmp_path, text):
    origin = source(tmp_path, "train.toml", text)
    for load in (lambda: spaces.of_cell(MLP, origin), origin.check):
        with pytest.raises(
            HarnessError, match=r"train.toml: loss must be one name for all cells, it cannot be searched. Known:"
        ):
            load()


def test_a_loss_of_ones_own_folder_is_the_loss_of_all_its_cells(tmp_path):
    origin = source(tmp_path, "train.toml", 'loss = "bce"')
    source(tmp_path, "losses/bce.toml", "m = { low = 1, high = 9 }")
    assert spaces.of_cell(MLP, origin).searched["loss.m"].high == 9


def test_the_version_of_the_loss_is_part_of_what_a_result_depends_on():
    cell, baseline = Cell("toy", "minilm", "sasrec[n_heads=1]", "mlp"), Cell("toy", "none", "none", "popularity")
    plain, other = (plan.versions(cell, loss) for loss in ("softmax", "bce"))
    assert plain["harness.losses"] == registry.schema(registry.LOSSES, "softmax").version
    assert set(plain) == set(other) == {"core", "adapters", "backbones", "harness.losses"}
    assert "harness.losses" not in plan.versions(baseline, "softmax")


def test_brackets_and_pins_fix_parameters():
    cell = Cell("toy", "minilm", "sasrec[n_heads=1]", "mlp[hidden=64,fusion=none]")
    space = spaces.of_cell(cell, spaces.SpaceSource(fixed={"train.d": 32, "train.lr": 0.01}))
    assert space.fixed | {"adapter.hidden": 64, "backbone.n_heads": 1, "text.fusion": "none"} == space.fixed
    assert (space.fixed["train.d"], space.default["train.lr"]) == (32, 0.01)
    assert "train.lr" not in space.searched


@pytest.mark.parametrize(
    ("adapter", "pins", "message"),
    [
        ("mlp[hiden=3]", {}, "mlp[...]: there is no parameter 'hiden'. Did you mean 'hidden'?"),
        ("mlp[hidden=wide]", {}, "mlp[hidden] = 'wide' is a str"),
        ("mlp", {"train.rl": 1}, "--set train.rl: not a shared parameter. Did you mean 'train.lr'?"),
        ("mlp", {"train.loss": "gbcee"}, "There is no loss 'gbcee'. Did you mean 'gbce'? Known: bce, gbce"),
        ("mlp", {"train.loss": 3}, "train.loss = 3 is an int; the parameter is a str"),
        ("mlp", {"train.loss": "infonce", "loss.tua": 1}, "of a bench with loss infonce. Did you mean 'loss.tau'?"),
        ("mlp", {"loss.tau": 0.1}, "--set loss.tau: not a shared parameter of a bench with loss softmax."),
        ("mlp", {"train.loss": "gbce", "loss.t": "high"}, "--set loss.t = 'high' is a str; the parameter is a float"),
    ],
)
def test_wrong_overrides_are_one_clear_line(adapter, pins, message):
    def load():
        origin = spaces.SpaceSource(fixed=pins)
        origin.check()
        return spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), origin)

    with pytest.raises(HarnessError) as caught:
        load()
    assert message in str(caught.value)


CONDITION = 'activation = {{ choices = ["gelu", "relu"] }}\ndropout = {{ low = 0.0, high = 0.3, when = {} }}'


def with_condition(folder, condition, adapter="mlp"):
    (folder / "adapters").mkdir(exist_ok=True)
    (folder / "adapters" / "mlp.toml").write_text(CONDITION.format(condition))
    return spaces.of_cell(Cell("toy", "noise", "sasrec", adapter), spaces.SpaceSource(folder))


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
        ('{ activation = "relu" }', "a condition must have the form when"),
        ("{}", "a condition must have the form when"),
        ('"relu"', "a condition must have the form when"),
        ("{ dropout = [0.1] }", "conditions do not chain"),
        ('{ activation = ["gelu", 3] }', "when activation = 3 is an int; the parameter is one of gelu, relu"),
        ('{ activation = ["tanh"] }', "when activation = 'tanh' is out of range"),
    ],
)
def test_a_wrong_condition_is_one_clear_line(tmp_path, condition, message):
    with pytest.raises(HarnessError, match=message):
        with_condition(tmp_path, condition)


def test_a_method_that_joins_text_and_id_itself_has_no_fusion_to_search(tmp_path, monkeypatch):
    schema = registry.schema(registry.ADAPTERS, "mlp")
    fusing = replace(schema, attributes=schema.attributes | {"fuses": True})
    monkeypatch.setattr(registry, "schema", lambda package, name: fusing if name == "mlp" else SCHEMA(package, name))
    space = spaces.of_cell(Cell("toy", "noise", "sasrec", "mlp"), spaces.SpaceSource(fixed={"text.fusion": "gate"}))
    assert space.fixed["text.fusion"] == "none"
    assert not {"text.fusion", "text.id_std"} & set(space.searched)
    with pytest.raises(HarnessError, match="decides how text and ID are joined"):
        spaces.of_cell(Cell("toy", "noise", "sasrec", "mlp[fusion=add]"), spaces.SpaceSource())


def test_a_range_is_the_same_however_its_ends_are_written(tmp_path):
    texts = ["dropout = { low = 0, high = 0.5 }", "dropout = { low = 0.0, high = 0.5 }"]
    first, second = (spaces.of_cell(MLP, source(tmp_path, text=text)).to_json() for text in texts)
    assert first == second
