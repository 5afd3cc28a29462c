"""Backbones: map sequences of item vectors (B, L, d) to a state at each position (B, L, d). One file per backbone."""
