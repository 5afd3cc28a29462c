"""Encode item texts as embeddings and compute their spectral basis; both cached by content.

Owns the text encoders and the embedding cache. May import data, record and the packages below them.
"""
