"""What every loss owes."""

import torch

from harness import registry
from harness.conformance._subjects import parametrized

N, P, WIDTH = 50, 12, 8


@parametrized(registry.LOSSES)
def test_a_loss_is_a_finite_number_whose_gradient_reaches_states_and_items(package, name):
    g = torch.Generator().manual_seed(0)
    h, table = (torch.randn(rows, WIDTH, generator=g, requires_grad=True) for rows in (P, N))
    loss, target = registry.load(package, name)(N), torch.randint(N, (P,), generator=g)
    loss.observe(torch.bincount(target, minlength=N))
    negatives = loss.draw(P, g)
    value = loss(h, table, target, negatives)
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    for tensor in (h, table):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert torch.count_nonzero(tensor.grad)


@parametrized(registry.LOSSES)
def test_a_loss_trains_on_the_scores_by_which_items_are_ranked(package, name):
    """A longer item vector changes the loss exactly if it changes a score. Logarithms of draws may be passed."""
    g = torch.Generator().manual_seed(0)
    h, table, target = torch.randn(P, WIDTH, generator=g), torch.randn(N, WIDTH, generator=g), torch.zeros(P).long()
    loss = registry.load(package, name)(N)
    loss.observe(torch.ones(N, dtype=torch.int64))
    negatives = loss.draw(P, g)
    expected = None if negatives is None else loss.log_expected(negatives)
    longer = torch.cat([10 * table[:1], table[1:]])
    scores, values = [], []
    for rows in (table, longer):
        scores.append(loss.project(h) @ loss.project(rows).T)
        values.append(loss(h, rows, target, negatives, expected))
    equal = torch.allclose(*scores, rtol=1e-4, atol=1e-5)
    assert torch.allclose(*values, rtol=1e-4, atol=1e-5) == equal


@parametrized(registry.LOSSES)
def test_a_loss_is_lower_where_the_target_scores_higher(package, name):
    target = torch.arange(P)
    table = torch.eye(N, N)
    loss = registry.load(package, name)(N)
    loss.observe(torch.ones(N, dtype=torch.int64))
    negatives = loss.draw(P, torch.Generator().manual_seed(0))
    right, wrong = (loss(scale * table[target], table, target, negatives).item() for scale in (3.0, -3.0))
    assert right < wrong
