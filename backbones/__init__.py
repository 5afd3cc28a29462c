"""Backbones: a sequence of item vectors (B, L, d) becomes a state at every position (B, L, d). One file a backbone."""
