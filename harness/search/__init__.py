"""What to run next, without Ray: the plan of a grid, search spaces, samplers, pruners, one Optuna study a cell.

Owns trial identities and the choice of configurations. May import training and all rooms below it.
"""
