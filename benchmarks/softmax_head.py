"""The softmax head: fused loss and gradients against torch's own and against its matrix products only.

torch has `F.cross_entropy` on all logits, and `F.linear_cross_entropy`, which makes them in chunks and is timed at its
fastest chunk size, measured in the same run.

The bound is the cost of the three products of a step (logits, gradient of the states, gradient of the table) with
nothing between them, at their fastest block size, measured in the same run. The rate of a square product is reported
too.
"""

from _measure import cpu_seconds, table, write  # before torch: sets the threads

# isort: split

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.training.losses._fused import softmax_loss

torch.set_num_threads(1)
torch.set_flush_denormal(True)

SHAPES = [(4096, 1_349, 64), (1024, 12_101, 64), (1024, 12_101, 128), (256, 100_000, 64), (64, 1_000_000, 64)]
BLOCKS = (2**18, 2**19, 2**20, 2**22)  # block sizes tried for the bound, in logits
CHUNKS = (16, 64, 256)  # rows a chunk tried for F.linear_cross_entropy


def main() -> None:
    square = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / cpu_seconds(lambda: square @ square, repeats=15)[0]
    rows = [measure(*shape) for shape in SHAPES]
    note = (
        f"A square float32 product of 1,024 runs at {peak / 1e9:.0f} GFLOP/s here. Times are nanoseconds per logit, "
        "forward and backward, medians. `of the products` is the share of the bound that the fused loss reaches; "
        "goal: 50 %. "
        "`error` is the relative error (L2 norm) of the table's gradient against float64."
    )
    write("softmax_head", "Softmax over the whole catalogue", note, table(rows))


def measure(P: int, N: int, d: int) -> dict[str, object]:
    g = torch.Generator().manual_seed(0)
    h, items = torch.randn(P, d, generator=g), torch.randn(N, d, generator=g) * 0.3
    target = torch.randint(N, (P,), generator=g)
    h.requires_grad_()
    items.requires_grad_()

    def fused(kind: torch.dtype) -> Tensor:
        h.grad = items.grad = None
        softmax_loss(h, items, target, blocks=kind).backward()
        assert items.grad is not None
        return items.grad

    def plain() -> Tensor:
        h.grad = items.grad = None
        F.cross_entropy(h @ items.T, target).backward()
        assert items.grad is not None
        return items.grad

    def chunked(rows: int) -> Tensor:
        h.grad = items.grad = None
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
        F.linear_cross_entropy(h, items, target, options=options).backward()
        assert items.grad is not None
        return items.grad

    sides = [lambda: fused(torch.float32), lambda: fused(torch.bfloat16), plain]
    sides += [lambda rows=rows: chunked(rows) for rows in CHUNKS]
    bounds = [
        lambda b=b, kind=kind: products(h.detach().to(kind), items.detach().to(kind), max(16, b // N))
        for kind in (torch.float32, torch.bfloat16)
        for b in BLOCKS
    ]
    ours, half, textbook, *rest = (1e9 * s / (P * N) for s in cpu_seconds(*sides, *bounds, repeats=7))
    linear, bound = min(rest[: len(CHUNKS)]), rest[len(CHUNKS) :]
    bound32, bound16 = min(bound[: len(BLOCKS)]), min(bound[len(BLOCKS) :])
    exact = reference(h.detach(), items.detach(), target)
    return {
        "positions": P,
        "items": N,
        "d": d,
        "cross_entropy": textbook,
        "linear_cross_entropy": linear,
        "fused": ours,
        "products": bound32,
        "of the products": f"{bound32 / ours:.0%}",
        "times faster": textbook / ours,
        "than linear_cross_entropy": linear / ours,
        "error": f"{error(fused(torch.float32), exact):.0e}",
        "fused bfloat16": half,
        "products bfloat16": bound16,
        "of these": f"{bound16 / half:.0%}",
        "times faster, bfloat16": textbook / half,
        "error, bfloat16": f"{error(fused(torch.bfloat16), exact):.0e}",
    }


def products(h: Tensor, items: Tensor, rows: int) -> None:
    """Compute the three products of a step, block by block, with nothing between them."""
    grad_h, grad_items = torch.empty_like(h), torch.zeros_like(items)
    block = h.new_empty(rows, len(items))
    for start in range(0, len(h), rows):
        x = h[start : start + rows]
        z = torch.mm(x, items.T, out=block[: len(x)])
        torch.mm(z, items, out=grad_h[start : start + rows])
        grad_items.addmm_(z.T, x)


def reference(h: Tensor, items: Tensor, target: Tensor, block: int = 64) -> Tensor:
    """Gradient of the table in float64."""
    h, items = h.double(), items.double()
    grad = torch.zeros_like(items)
    for start in range(0, len(h), block):
        x = h[start : start + block]
        grad += (x @ items.T).softmax(1).T @ x
    return grad.index_add_(0, target, h, alpha=-1) / len(h)


def error(gradient: Tensor, exact: Tensor) -> float:
    return ((gradient.double() - exact).norm() / exact.norm()).item()


if __name__ == "__main__":
    main()
