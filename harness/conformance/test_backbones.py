"""What every backbone owes, and that models compute where they were moved to."""

import pytest
import torch

from harness.conformance._subjects import (
    ADAPTERS,
    BACKBONES,
    MAX_LEN,
    D,
    assert_all_are_reached,
    batch,
    each_backbone,
    fusions_of,
    loss_of,
    make_backbone,
    make_table,
    model_of,
    states_of,
    stirred,
    times_of,
)
from harness.training.losses._fused import softmax_loss


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
def test_no_state_that_is_trained_reads_its_target(name):
    """Items are distinct, so that a target is in its row at most once; a backbone that is not causal needs `views`."""
    model = stirred(model_of(make_table("id"), make_backbone(name))).eval()
    items = batch()
    items[items > 0] = 1 + torch.randperm(60, generator=torch.Generator().manual_seed(4))[: int((items > 0).sum())]
    inputs, targets = model.backbone.views(items, torch.Generator().manual_seed(2))
    times = times_of(items) if model.backbone.uses_time else None
    T = model.table().detach().requires_grad_()
    states = model.states(inputs, T, times)
    probe = torch.randn(states.shape[-1], generator=torch.Generator().manual_seed(6))
    for row, t in (targets > 0).nonzero().tolist():
        (read,) = torch.autograd.grad(states[row, t] @ probe, T, retain_graph=True)
        assert read[targets[row, t]].abs().max() <= 1e-6 * read.abs().max()


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
    assert x.grad is not None
    assert (x.grad[0].abs().sum(1) > 0).all()


@each_backbone
def test_a_gradient_reaches_every_parameter_of_a_backbone(name):
    backbone = stirred(make_backbone(name))
    loss_of(make_table("id"), backbone).backward()
    assert_all_are_reached(dict(backbone.named_parameters()))


@each_backbone
def test_a_backbone_survives_the_state_dict_round_trip(name):
    source, target = make_backbone(name).eval(), make_backbone(name, seed=99).eval()
    for p in source.parameters():
        p.data.add_(0.05)
    x, real = torch.randn(2, MAX_LEN, D), torch.ones(2, MAX_LEN, dtype=torch.bool)
    assert not torch.equal(states_of(source, x, real), states_of(target, x, real))
    target.load_state_dict(source.state_dict())
    assert torch.equal(states_of(source, x, real), states_of(target, x, real))


@each_backbone
def test_the_state_at_one_position_is_that_of_the_whole_row(name):
    backbone, table = make_backbone(name).eval(), torch.randn(61, D, generator=torch.Generator().manual_seed(3))
    items, at = batch()[:, :-1], torch.tensor([5, 3, 0, 1])
    times = times_of(batch()) if backbone.uses_time else None
    whole = backbone(table[items], items > 0, times)
    found = backbone.last(table[items], items > 0, at, times)
    torch.testing.assert_close(found, whole[torch.arange(4), at], rtol=1e-5, atol=1e-6)


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
    history = batch()[:, :-1].to("meta")
    at = torch.tensor([5, 3, 0, 1], device="meta")
    times = times_of(batch()).to("meta") if model.backbone.uses_time else None
    last = model.backbone.last(T[history][..., : model.backbone.d], history > 0, at, times)
    (loss + last.sum() + model.table.rows(inputs.flatten()).sum()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.grad.device.type for p in trained if p.grad is not None} == {"meta"}
