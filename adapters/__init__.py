"""Adapters: turn a frozen text embedding matrix (N items x D) into an item table (N x d). One file per adapter."""
