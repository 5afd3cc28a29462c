"""Training losses. One module per loss."""
