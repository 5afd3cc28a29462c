"""Search spaces: one TOML file a component; `train.toml` and `text.toml` are shared by all cells."""
