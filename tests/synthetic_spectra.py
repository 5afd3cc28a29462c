"""Made-up catalogues for the tests of the model rooms: those of the conformance suite."""

from harness.conformance.spectra import spectrum_of, spectrum_of_variants, toy_interactions, toy_spectrum, toy_variants

__all__ = ["spectrum_of", "spectrum_of_variants", "toy_interactions", "toy_spectrum", "toy_variants"]
