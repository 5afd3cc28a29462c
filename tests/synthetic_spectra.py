"""Made-up catalogues for the tests of the models: those of the conformance suite, and popularity by hand."""

from dataclasses import replace

import torch

from adapters._base import Interactions
from harness.conformance.spectra import spectrum_of, spectrum_of_variants, toy_interactions, toy_spectrum, toy_variants

__all__ = ["popular", "spectrum_of", "spectrum_of_variants", "toy_interactions", "toy_spectrum", "toy_variants"]


def popular(spectrum, counts):
    """The spectrum with training events such that item i has counts[i]."""
    items = torch.repeat_interleave(torch.arange(spectrum.n), torch.tensor(counts))
    return replace(spectrum, interactions=Interactions(items, torch.tensor([0, len(items)])))
