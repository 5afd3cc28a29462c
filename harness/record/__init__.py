"""What happened, on disk: the append-only ledger, trial artifacts, leases, and the MLflow mirror.

Owns the home folder's layout (`mlflow_client` alone imports MLflow). May import stats, metrics, system, registry and
types.
"""
