"""Item texts to embeddings to their spectral basis, cached by content.

Owns the text encoders and the embedding cache. May import data, record and all rooms below them.
"""
