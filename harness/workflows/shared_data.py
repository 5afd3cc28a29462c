"""Prepare the data that trials read: embeddings, bases and splits, computed before training starts."""

from __future__ import annotations

from typing import Any

from harness.data import splits
from harness.search import ensembles
from harness.search.plan import Plan
from harness.search.study import Study
from harness.system.console import log
from harness.text import embeddings
from harness.types import HarnessError, Json

Bases = dict[str, tuple[embeddings.Basis, dict[str, Any]]]  # embedding hash -> basis, and arrays of the embedding


def prepare(grid: Plan) -> Bases:
    """Compute the embeddings and bases of pending studies; remove cells that cannot be built from the grid."""
    bases = _bases(grid)
    _skip_unbuildable(grid, bases)
    _warn_of_slow_products(grid)
    return bases


def _warn_of_slow_products(grid: Plan) -> None:
    """Warn if bfloat16, chosen for speed, is slower because the processor lacks the instructions."""
    from harness.training import precision

    if any(study.space.default.get("train.precision") == "bfloat16" for study in grid.pending):
        times = precision.bfloat16_slows()
        if times > 1.5:
            log(f"Warning: train.precision=bfloat16, but this processor computes such products {times:.0f}x slower.")


def _bases(grid: Plan) -> Bases:
    """Return embeddings and bases of pending studies, cached or computed."""
    wanted = {(s.cell.dataset, s.cell.encoder, s.inputs.embedding) for s in grid.pending if s.inputs.embedding}
    bases: Bases = {}
    for dataset, word, key in sorted(wanted):
        encoded = grid.encoded_datasets[dataset]
        matrices = embeddings.matrices(encoded.encoders[word], encoded.texts, grid.request.home)
        embeddings.check_unchanged(encoded.encoders[word], encoded.texts, key)
        basis = embeddings.basis(matrices["E"], key, grid.request.home)
        for note in basis.info["notes"]:
            log(f"{dataset} / {word}: {note}")
        bases[key] = (basis, matrices)
    return bases


def arrays(basis: embeddings.Basis, matrices: dict[str, Any]) -> Json:
    """Return what trials read of an embedding: its basis, E and, if items have several texts, `variants`."""
    return {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, **matrices}


def _skip_unbuildable(grid: Plan, bases: Bases) -> None:
    """Build the default model of every pending cell once; skip cells that cannot be built, with the reason."""
    from harness.training import trial

    kept: list[Study] = []
    split_of = {name: splits.split(m.prepared, grid.request.protocol) for name, m in grid.encoded_datasets.items()}
    for study in grid.studies:
        reason = ensembles.lacks(study.cell, {cell for cell, _ in grid.skipped}) or None
        if study.state == "pending" and study.cell.is_trained:
            key, n = study.inputs.embedding, grid.encoded_datasets[study.cell.dataset].prepared.catalogue.height
            spectrum = trial.spectrum(arrays(*bases[key]) if key else {}, n)
            try:
                made = trial.build(
                    study.trial("search", 0, study.space.default), split_of[study.cell.dataset], spectrum
                )
                if spectrum.variants is not None and not made.table.adapter.draws:
                    log(f"{study.cell} trains on the mean of an item's texts: {study.cell.adapter} draws none.")
            except ValueError as error:
                reason = str(error)
            except Exception as error:  # a bug in the component: its trials fail with this reason and are counted
                log(f"{study.cell} cannot be built: {type(error).__name__}: {error}")
        if reason is None:
            kept.append(study)
        else:
            grid.skipped.append((study.cell, reason))
            log(f"Skipped {study.cell}: {reason}")
    if grid.skipped and not any(study.cell.is_trained for study in kept):
        cell, reason = grid.skipped[0]
        raise HarnessError(f"No cell of this grid can be built; {cell}: {reason}")
    grid.studies[:] = kept


def collect(grid: Plan, pending: list[Study], bases: Bases) -> Json:
    """Return the objects that workers read, by hash.

    `splits` (sealed for searches, open for confirmations, by fold), `spectra` (bases with their embeddings) and `sizes`
    (items of each data set).
    """
    split_of: dict[tuple[str, str, int], splits.Split] = {}
    for name in {study.cell.dataset for study in pending}:
        prepared = grid.encoded_datasets[name].prepared
        for part in grid.request.protocol.parts:
            split_of[prepared.hash, "confirm", part.fold] = splits.split(prepared, part)
        split_of[prepared.hash, "search", 0] = split_of[prepared.hash, "confirm", 0].sealed()
    spectra = {key: arrays(*basis) for key, basis in bases.items()}
    return {
        "splits": split_of,
        "spectra": spectra,
        "sizes": {m.prepared.hash: m.prepared.catalogue.height for m in grid.encoded_datasets.values()},
    }
