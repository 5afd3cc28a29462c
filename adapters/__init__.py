"""Adapters: a frozen text embedding matrix (N items x D) becomes an item table (N x d). One file an adapter."""
