"""What every adapter owes."""

from dataclasses import replace

import torch

from adapters._base import Adapter, ItemTable, Spectrum
from harness import registry
from harness.conformance._subjects import (
    MAX_LEN,
    D,
    assert_all_are_reached,
    each_adapter,
    each_fused,
    loss_of,
    make_adapter,
    make_backbone,
    make_table,
    model_of,
    step_of,
    stirred,
    width_of,
)
from harness.conformance.spectra import toy_spectrum, toy_variants


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
    table = stirred(make_table(name, fusion))
    loss_of(table, make_backbone("gru4rec")).backward()
    trained = {name: p for name, p in table.named_parameters() if p.requires_grad}
    assert trained
    assert_all_are_reached(trained)


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
    adapter = stirred(make_adapter(name, spectrum))
    found = adapter.linear_map()
    if found is not None:
        W, b = found
        rows = (spectrum.E != 0).any(1)
        torch.testing.assert_close((spectrum.E @ W + b)[rows], adapter()[rows].detach(), rtol=1e-4, atol=1e-4)


@each_fused
def test_the_text_of_an_unseen_item_gives_its_row_but_for_the_id_embedding(name, fusion):
    table = stirred(make_table(name, fusion))
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
