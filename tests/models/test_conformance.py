"""What every adapter, backbone and loss owes, whoever wrote it: run over all files of the three folders."""

import inspect
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_spectra import toy_spectrum, toy_variants

from adapters._base import FUSIONS, Adapter, ItemTable, Spectrum, Step
from backbones._base import Backbone
from harness import registry
from harness.search import axes, spaces
from harness.system.files import write_json
from harness.training.losses._base import Loss
from harness.training.losses._fused import softmax_loss
from harness.training.losses.softmax import Softmax
from harness.training.model import Batch, SequenceModel

ADAPTERS, BACKBONES = registry.names(registry.ADAPTERS), registry.names(registry.BACKBONES)
MODELS = [(registry.ADAPTERS, n) for n in ADAPTERS] + [(registry.BACKBONES, n) for n in BACKBONES]
COMPONENTS = MODELS + [(registry.LOSSES, n) for n in registry.names(registry.LOSSES)]
OWED = {  # base class, and what stands before the hyper-parameters
    registry.ADAPTERS: (Adapter, ["spectrum", "d"]),
    registry.BACKBONES: (Backbone, ["d", "max_len"]),
    registry.LOSSES: (Loss, ["n_items"]),
}
GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
FLAGS = {
    "uses_text": True,
    "fuses": False,
    "pace": 1,
    "by_name_only": False,
    "note": "",
    "draws": False,
}  # what is read from source
D, MAX_LEN = 8, 6

each_adapter = pytest.mark.parametrize("name", ADAPTERS)
each_backbone = pytest.mark.parametrize("name", BACKBONES)
each_model = pytest.mark.parametrize(("package", "name"), MODELS, ids=[f"{p}/{n}" for p, n in MODELS])
each_component = pytest.mark.parametrize(("package", "name"), COMPONENTS, ids=[f"{p}/{n}" for p, n in COMPONENTS])


def fusions_of(name):
    adapter = registry.load(registry.ADAPTERS, name)
    return FUSIONS if adapter.uses_text and not adapter.fuses else ("none",)


FUSED = [(name, fusion) for name in ADAPTERS for fusion in fusions_of(name)]
each_fused = pytest.mark.parametrize(("name", "fusion"), FUSED)


def make_adapter(name, spectrum=None, d=D, **own):
    torch.manual_seed(0)
    return registry.load(registry.ADAPTERS, name)(spectrum or toy_spectrum(), d, **own)


def make_table(name, fusion="none", **own):
    d = D // 2 if fusion == "concat" else D
    return ItemTable(make_adapter(name, d=d, **own), D, fusion=fusion, out_std=0.05, id_std=0.02)


def make_backbone(name, **own):
    torch.manual_seed(0)
    return registry.load(registry.BACKBONES, name)(D, MAX_LEN, **own)


def batch():
    """Right-padded item numbers of 60 items, (4, MAX_LEN + 1)."""
    g = torch.Generator().manual_seed(1)
    items = torch.randint(1, 61, (4, MAX_LEN + 1), generator=g)
    items[1, 4:] = 0
    items[3, 2:] = 0
    return items


def model_of(table, backbone):
    return SequenceModel(table, backbone, Softmax(table.adapter.n))


def loss_of(table, backbone):
    times = times_of(batch()) if backbone.uses_time else None
    return model_of(table, backbone).loss(
        Batch(batch(), torch.tensor([0, 1, 2, 5]), times), torch.Generator().manual_seed(2)
    )


def step_of(model):
    """The step that `batch` is, as an auxiliary loss is given it."""
    T, sequences = model.table(), batch()
    inputs, targets = sequences[:, :-1], sequences[:, 1:]
    states = model.states(inputs, T)[targets > 0]
    users = torch.tensor([0, 1, 2, 5])
    return Step(sequences, users, states, targets[targets > 0] - 1, lambda items: model.last_states(items, T))


def times_of(items):
    """Event times of item numbers, (rows, L), later from left to right, zeros on padding."""
    steps = torch.randint(1, 10**6, items.shape, generator=torch.Generator().manual_seed(5))
    return 1_300_000_000 * (items > 0) + steps.cumsum(1) * (items > 0)


def states_of(backbone, x, real):
    """The backbone's states of item vectors, at times that depend on the position alone."""
    times = (torch.arange(x.shape[1] + 1) * 86_400).expand(len(x), -1) if backbone.uses_time else None
    return backbone(x, real, times)


def width_of(name):
    return registry.load(registry.ADAPTERS, name).views * D


# Adapters


@each_adapter
def test_an_adapter_gives_one_finite_row_of_width_d_per_item(name):
    for spectrum in (toy_spectrum(), toy_spectrum(missing=(4, 9)), toy_spectrum(15, 40)):
        table = make_adapter(name, spectrum)()
        assert table.shape == (spectrum.n, width_of(name))
        assert table.dtype == torch.float32
        assert torch.isfinite(table).all()
        assert table.std() > 0


@each_fused
def test_a_gradient_reaches_every_parameter_through_the_seam(name, fusion):
    table = make_table(name, fusion)
    loss_of(table, make_backbone("gru4rec")).backward()
    trained = [p for p in table.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert any(torch.count_nonzero(p.grad) for p in trained)


@each_adapter
def test_the_padding_row_is_zero_before_and_after_training(name):
    table, backbone = make_table(name), make_backbone("gru4rec")
    optimizer = torch.optim.Adam([*table.parameters(), *backbone.parameters()], lr=0.05)
    before = table().detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(table, backbone).backward()
        optimizer.step()
    assert torch.count_nonzero(before[0]) == torch.count_nonzero(table()[0]) == 0
    assert not torch.equal(before[1:], table()[1:])


@each_fused
def test_chosen_rows_are_those_of_the_whole_table_and_so_are_their_gradients(name, fusion):
    table = make_table(name, fusion).double().eval()
    items = torch.tensor([7, 0, 60, 1, 7, 33])
    weights = torch.randn(len(items), width_of(name), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found, expected = table.rows(items), table()[items]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    trained = [p for p in table.parameters() if p.requires_grad]
    if trained:
        pairs = [
            torch.autograd.grad((rows * weights).sum(), trained, materialize_grads=True) for rows in (found, expected)
        ]
        for a, b in zip(*pairs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_an_adapter_that_only_makes_its_whole_table_gives_rows_too():
    class Whole(Adapter):
        def __init__(self, spectrum, d):
            super().__init__(spectrum, d)
            self.table = torch.nn.Parameter(torch.randn(spectrum.n, d))

        def forward(self):
            return self.table - self.table.mean(0)

    table = ItemTable(Whole(toy_spectrum(), D), D, fusion="add", out_std=0.05, id_std=0.02)
    items = torch.tensor([3, 0, 9])
    torch.testing.assert_close(table.rows(items), table()[items])


@each_adapter
def test_an_adapter_keeps_its_frozen_text_out_of_the_state_dict_and_survives_the_round_trip(name):
    source = make_table(name).eval()
    for p in source.parameters():
        p.data.add_(0.05)
    torch.manual_seed(99)
    target = ItemTable(
        registry.load(registry.ADAPTERS, name)(toy_spectrum(), D), D, fusion="none", out_std=0.3, id_std=0.0
    ).eval()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(), source())
    assert set(source.state_dict()) == {n for n, _ in source.named_parameters()}


@each_adapter
def test_an_adapter_reads_text_exactly_if_it_says_so(name):
    """In its table, or in its auxiliary loss."""
    if not registry.load(registry.ADAPTERS, name).uses_text:
        assert make_adapter(name, Spectrum.blank(60))().shape == (60, D)
        return
    found = []
    for seed in (0, 1):
        table = ItemTable(make_adapter(name, toy_spectrum(seed=seed)), D, fusion="none", out_std=0.05, id_std=0.0)
        aux = table.adapter.aux(step_of(model_of(table, make_backbone("gru4rec"))))
        found.append((table().detach(), 0.0 if aux is None else aux.item()))
    (one, loss), (other, other_loss) = found
    assert not torch.equal(one, other) or loss != other_loss


@each_adapter
def test_an_adapter_draws_among_the_texts_of_an_item_exactly_if_it_says_so(name):
    spectrum = toy_variants()
    table, mean = make_table(name, spectrum=spectrum), make_table(name, spectrum=replace(spectrum, variants=None))
    model = model_of(table, make_backbone("gru4rec"))

    def outcome(seed):
        """The table and the auxiliary loss in a training step that draws texts with this seed."""
        torch.manual_seed(seed)
        table.adapter.draw()
        torch.manual_seed(0)
        aux = table.adapter.aux(step_of(model))
        torch.manual_seed(0)
        return table().detach(), 0.0 if aux is None else aux.item()

    (one, loss), (other, other_loss) = outcome(1), outcome(2)
    assert (torch.equal(one, other) and loss == other_loss) is not table.adapter.draws
    assert torch.equal(outcome(1)[0], one)
    assert torch.equal(table.eval()(), mean.eval()()), "the ranking reads the mean"


@each_adapter
def test_a_linear_map_where_there_is_one_reproduces_the_table(name):
    spectrum = toy_spectrum(missing=(5,))
    adapter = make_adapter(name, spectrum)
    found = adapter.linear_map()
    if found is not None:
        W, b = found
        rows = (spectrum.E != 0).any(1)
        torch.testing.assert_close((spectrum.E @ W + b)[rows], adapter()[rows].detach(), rtol=1e-4, atol=1e-4)


@each_fused
def test_the_text_of_an_unseen_item_gives_its_row_but_for_the_id_embedding(name, fusion):
    table = make_table(name, fusion)
    found = table.linear_map()
    if found is None:
        own = table.adapter.linear_map()
        assert fusion == "gate" or own is None or not table.adapter.uses_text
        return
    if fusion != "none":
        table.id.data.zero_()
    W, b = found
    E = table.adapter.spectrum.E
    rows = (E != 0).any(1)
    torch.testing.assert_close((E @ W + b)[rows], table()[1:][rows].detach(), rtol=1e-4, atol=1e-5)


@each_adapter
def test_what_mixes_views_can_be_built_without_text(name):
    adapter = make_adapter(name)
    cls, params = type(adapter), registry.schema(registry.ADAPTERS, name).params
    assert cls.mix is Adapter.mix, "mix is overridden; give the class a mixer_of instead, for exported models"
    if adapter.views == 1:
        assert adapter.mixer is None
        return
    bare = cls.mixer_of(D, params)
    bare.load_state_dict(adapter.mixer.state_dict())
    x, real = torch.randn(2, 5, adapter.views * D), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(bare(x, real, True), adapter.mix(x, real, True), rtol=0, atol=0)


@each_adapter
def test_adapter_diagnostics_are_finite_numbers(name):
    assert all(isinstance(v, float) and abs(v) < 1e9 for v in make_adapter(name).diagnostics().values())


@each_adapter
def test_an_auxiliary_loss_is_a_finite_number_whose_gradient_reaches_the_adapter(name):
    table = make_table(name)
    loss = table.adapter.aux(step_of(model_of(table, make_backbone("gru4rec"))))
    if loss is not None:
        assert loss.shape == ()
        assert loss.item() != 0
        gradients = torch.autograd.grad(loss, list(table.adapter.parameters()), allow_unused=True)
        assert any(torch.count_nonzero(g) for g in gradients if g is not None)
        assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@each_adapter
def test_mixing_the_vectors_of_a_sequence_reads_no_future_and_no_padding(name):
    adapter = make_adapter(name).eval()
    x, real = torch.randn(2, MAX_LEN, width_of(name)), torch.ones(2, MAX_LEN, dtype=torch.bool)
    found = adapter.mix(x, real, causal=True)
    assert found.shape == (2, MAX_LEN, D if adapter.folds else width_of(name))
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(adapter.mix(changed, real, causal=True)[:, :4], found[:, :4])
    real[:, 4:] = False
    torch.testing.assert_close(
        adapter.mix(changed, real, causal=False)[:, :4], adapter.mix(x, real, causal=False)[:, :4]
    )


# Backbones


@each_backbone
def test_a_backbone_gives_a_state_of_width_d_at_every_position_of_any_length(name):
    for length in (1, 3, MAX_LEN):
        x = torch.randn(2, length, D)
        assert states_of(make_backbone(name), x, torch.ones(2, length, dtype=torch.bool)).shape == (2, length, D)


@each_backbone
def test_a_causal_backbone_does_not_see_the_future(name):
    backbone = make_backbone(name).eval()
    if not backbone.causal:
        return
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, MAX_LEN, D, generator=g)
    whole = torch.ones(3, MAX_LEN, dtype=torch.bool)
    expected = states_of(backbone, x, whole)
    for t in range(MAX_LEN - 1):
        changed, cut, real = x.clone(), x.clone(), whole.clone()
        changed[:, t + 1 :] = torch.randn(3, MAX_LEN - t - 1, D, generator=g)
        cut[:, t + 1 :], real[:, t + 1 :] = 0, False
        assert torch.equal(states_of(backbone, changed, whole)[:, : t + 1], expected[:, : t + 1])
        assert torch.equal(states_of(backbone, cut, real)[:, : t + 1], expected[:, : t + 1])


@each_backbone
def test_the_length_of_the_padding_changes_no_real_state(name):
    backbone = make_backbone(name).eval()
    x, real = torch.randn(2, 3, D), torch.ones(2, 3, dtype=torch.bool)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 3))
    found = states_of(backbone, padded, torch.nn.functional.pad(real, (0, 3)))[:, :3]
    torch.testing.assert_close(found, states_of(backbone, x, real), rtol=1e-5, atol=1e-6)


@each_backbone
def test_the_past_reaches_the_last_state(name):
    backbone = make_backbone(name).eval()
    x = torch.randn(1, MAX_LEN, D, requires_grad=True)
    states_of(backbone, x, torch.ones(1, MAX_LEN, dtype=torch.bool))[0, -1].square().sum().backward()
    assert (x.grad[0].abs().sum(1) > 0).all()


@each_backbone
def test_a_gradient_reaches_every_parameter_of_a_backbone(name):
    backbone = make_backbone(name)
    loss_of(make_table("id"), backbone).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in backbone.parameters())


@each_backbone
def test_a_backbone_survives_the_state_dict_round_trip(name):
    source, target = make_backbone(name).eval(), make_backbone(name).eval()
    for p in source.parameters():
        p.data.add_(0.05)
    x, real = torch.randn(2, MAX_LEN, D), torch.ones(2, MAX_LEN, dtype=torch.bool)
    assert not torch.equal(states_of(source, x, real), states_of(target, x, real))
    target.load_state_dict(source.state_dict())
    assert torch.equal(states_of(source, x, real), states_of(target, x, real))


# All: what the registry, the search spaces and the ledger rely on


@each_component
def test_the_schema_read_from_source_is_that_of_the_class(package, name):
    cls, schema = registry.load(package, name), registry.schema(package, name)
    parameters = inspect.signature(cls).parameters.values()
    base, given = OWED[package]
    assert issubclass(cls, base)
    assert schema.cls == cls.__name__
    assert schema.params == {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == given
    assert schema.version == cls.version
    for flag, default in FLAGS.items():
        assert schema.attributes.get(flag, default) == getattr(cls, flag, default)


def axes_of(package, name):
    file, schema = f"{package.rpartition('.')[2]}/{name}.toml", registry.schema(package, name)
    return spaces.read(spaces.SpaceSource().path(file), name, schema.params, schema.domains)


@each_component
def test_every_hyper_parameter_declares_its_range(package, name):
    """A number its bounds, an int both, a word its choices; the default lies inside."""
    schema = registry.schema(package, name)
    for parameter, default in schema.params.items():
        domain = schema.domains[parameter]
        assert domain.checked(parameter, default) == default
        operators = "".join(operator for operator, _ in domain.bounds)
        declared = {
            bool: True,
            str: len(domain.choices) > 1,
            float: ">" in operators or bool(domain.choices),
            int: (">" in operators and "<" in operators) or bool(domain.choices),
        }
        assert declared[domain.kind], f"{parameter} is annotated without its range; see CONTRIBUTING.md"


@each_component
def test_every_value_at_an_inclusive_end_of_its_range_can_be_built(package, name):
    """Small ends alone: the large ones of a count are no more than a guard against typing errors."""
    for parameter, domain in registry.schema(package, name).domains.items():
        ends = [bound for operator, bound in domain.bounds if operator == ">=" or (operator == "<=" and bound <= 1)]
        ends = [max(end, D) for end in ends] if domain.relation == ">= d" else ends
        for value in [*ends, *domain.choices]:
            own = {parameter: value}
            if package == registry.ADAPTERS:
                assert torch.isfinite(make_adapter(name, **own)()).all()
            elif package == registry.BACKBONES:
                make_backbone(name, **own)
            else:
                registry.load(package, name)(60, **own)


@each_component
def test_every_default_lies_inside_the_search_space(package, name):
    defaults = registry.schema(package, name).params
    space = axes_of(package, name)
    assert sum(isinstance(axis, axes.Range | axes.Choices) for axis in space.values()) <= 8
    for parameter, axis in space.items():
        held = axis.holds(defaults[parameter]) if hasattr(axis, "holds") else axis == defaults[parameter]
        assert held, f"{name}: the default of {parameter}, {defaults[parameter]!r}, is not in {axis}"


@each_component
def test_both_ends_of_every_search_axis_can_be_built(package, name):
    for parameter, axis in axes_of(package, name).items():
        ends = (
            axis.values if isinstance(axis, axes.Choices) else (getattr(axis, "low", axis), getattr(axis, "high", axis))
        )
        for value in ends:
            own = {parameter: value}
            if package == registry.ADAPTERS:
                assert torch.isfinite(make_adapter(name, **own)()).all()
            elif package == registry.BACKBONES:
                make_backbone(name, **own)
            else:
                registry.load(package, name)(60, **own)


@each_component
def test_a_component_cites_its_source_and_states_its_version(package, name):
    schema = registry.schema(package, name)
    assert re.search(r"\b(19|20)\d\d\b", schema.doc), "the module docstring names no paper with its year"
    assert inspect.getdoc(registry.load(package, name))
    assert type(schema.version) is int
    assert schema.version >= 1


@each_model
def test_behaviour_changes_only_together_with_the_version(package, name):
    drops = [p for p in registry.schema(package, name).params if p.endswith("dropout")]
    own = dict.fromkeys(drops, 0.0)  # dropout's draws are the platform's
    table = make_table(name, **own) if package == registry.ADAPTERS else make_table("id")
    backbone = (
        make_backbone(name, **own)
        if package == registry.BACKBONES
        else make_backbone("gru4rec", dropout=0.0, emb_scale="one")
    )
    optimizer = torch.optim.Adam([p for m in (table, backbone) for p in m.parameters()], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(table, backbone)
        loss.backward()
        optimizer.step()
    check_golden(f"{package}/{name}", loss.item(), registry.schema(package, name).version)


def check_golden(component, loss, version):
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    known = golden.get(component, {"loss": None, "version": None})
    same = known["loss"] is not None and loss == pytest.approx(known["loss"], rel=1e-4)
    if os.environ.get("UPDATE_GOLDEN") == "1" and not (same and known["version"] == version):
        assert known["version"] != version, (
            f"{component} behaves differently: raise its `version` above {version} first"
        )
        write_json(GOLDEN, golden | {component: {"loss": round(loss, 6), "version": version}})
        return
    assert component in golden, f"{component} has no golden loss yet: run the tests once with UPDATE_GOLDEN=1"
    remedy = "raise its `version` and run the tests once with UPDATE_GOLDEN=1"
    assert same, f"{component} trains to loss {loss:.6f}, golden {known['loss']}; if that is meant, {remedy}"
    assert known["version"] == version, f"{component} is version {version}, golden {known['version']}; {remedy}"


@each_backbone
def test_the_state_at_one_position_is_that_of_the_whole_row(name):
    backbone, table = make_backbone(name).eval(), torch.randn(61, D, generator=torch.Generator().manual_seed(3))
    items, at = batch()[:, :-1], torch.tensor([5, 3, 0, 1])
    times = times_of(batch()) if backbone.uses_time else None
    whole = backbone(table[items], items > 0, times)
    found = backbone.last(table[items], items > 0, at, times)
    torch.testing.assert_close(found, whole[torch.arange(4), at], rtol=1e-5, atol=1e-6)


# Devices


@pytest.mark.parametrize(
    ("adapter", "backbone"), [(a, "sasrec") for a in ADAPTERS] + [("spectran", b) for b in BACKBONES]
)
def test_a_model_that_is_moved_computes_where_it_was_moved_to(adapter, backbone):
    """The meta device computes nothing, but like a GPU it refuses to mix with tensors left on the CPU."""
    fusion = "gate" if "gate" in fusions_of(adapter) else "none"
    model = model_of(make_table(adapter, fusion), make_backbone(backbone))
    inputs, targets = model.backbone.views(batch(), torch.Generator().manual_seed(2))
    times = times_of(batch()).to("meta") if model.backbone.uses_time else None
    model, inputs, targets = model.to("meta"), inputs.to("meta"), targets.to("meta")
    T = model.table()
    loss = softmax_loss(model.states(inputs, T, times).flatten(0, 1), model.scored(T)[1:], targets.flatten())
    (loss + model.table.rows(inputs.flatten()).sum()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.grad.device.type for p in trained if p.grad is not None} == {"meta"}
