"""What the registry, the search spaces and the ledger rely on: schema, ranges, defaults, search space."""

import inspect

import torch

from adapters._base import Adapter
from backbones._base import Backbone
from harness import registry
from harness.conformance._subjects import (
    D,
    each_component,
    each_model,
    loss_of,
    make_adapter,
    make_backbone,
    make_table,
)
from harness.search import axes, spaces
from harness.training.losses._base import Loss

OWED = {  # base class, and the parameters before the hyper-parameters
    registry.ADAPTERS: (Adapter, ["spectrum", "d"]),
    registry.BACKBONES: (Backbone, ["d", "max_len"]),
    registry.LOSSES: (Loss, ["n_items"]),
}
FLAGS = {  # what is read from source
    "uses_text": True,
    "fuses": False,
    "pace": 1,
    "by_name_only": False,
    "note": "",
    "draws": False,
}


@each_model
def test_a_few_steps_of_training_stay_finite_and_change_the_loss(package, name):
    table = make_table(name if package == registry.ADAPTERS else "id")
    backbone = make_backbone(name if package == registry.BACKBONES else "gru4rec")
    optimizer = torch.optim.Adam([p for m in (table, backbone) for p in m.parameters()], lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(loss_of(table, backbone))
        losses[-1].backward()
        optimizer.step()
    assert torch.isfinite(torch.stack(losses)).all()
    assert losses[0].item() != losses[-1].item()


@each_component
def test_a_component_describes_itself_and_states_its_version(package, name):
    schema = registry.schema(package, name)
    assert schema.doc, "the module needs a docstring: `harness list` and `show` print it"
    assert inspect.getdoc(registry.load(package, name))
    assert type(schema.version) is int
    assert schema.version >= 1


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
    schema, file = registry.schema(package, name), f"{package.rpartition('.')[2]}/{name}.toml"
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


def build(package, name, own):
    if package == registry.ADAPTERS:
        assert torch.isfinite(make_adapter(name, **own)()).all()
    elif package == registry.BACKBONES:
        make_backbone(name, **own)
    else:
        registry.load(package, name)(60, **own)


@each_component
def test_every_value_at_an_inclusive_end_of_its_range_can_be_built(package, name):
    """Small ends alone: the large ones of a count are no more than a guard against typing errors."""
    for parameter, domain in registry.schema(package, name).domains.items():
        ends = [bound for operator, bound in domain.bounds if operator == ">=" or (operator == "<=" and bound <= 1)]
        ends = [max(end, D) for end in ends] if domain.relation == ">= d" else ends
        for value in [*ends, *domain.choices]:
            build(package, name, {parameter: value})


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
            build(package, name, {parameter: value})
