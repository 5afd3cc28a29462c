"""TF32 is for trials on a GPU only."""

import torch

from harness.training.precision import use_tf32


def test_only_a_gpu_gets_tf32():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert not use_tf32("cpu")
        assert torch.get_float32_matmul_precision() == "highest"
        assert use_tf32("cuda")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
