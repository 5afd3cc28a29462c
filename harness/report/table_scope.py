"""Which launches share a table, which cells it has, and why it skips some."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from harness.record.launches import LaunchRecord, StudyRecord
from harness.record.ledger import Ledger
from harness.types import Cell, HarnessError, Inputs, Json

AGAIN = "name it in a bench to retrain it"


@dataclass(frozen=True)
class Scope:
    """The cells of a table.

    ``studies``: each cell's newest study; ``launch_of``: the newest launch with it; ``inputs``: of its trials;
    ``skipped``: reasons of the cells that the newest launch naming them skipped; ``outdated``: reasons of studies that
    cannot stand beside the rest (earlier data or texts, ensembles of earlier runs); ``cards``: the newest card of each
    data set.
    """

    studies: dict[Cell, StudyRecord]
    launch_of: dict[Cell, str]
    inputs: dict[Cell, list[Inputs]]
    skipped: dict[Cell, str]
    outdated: dict[Cell, str]
    cards: Json


def newest(ledger: Ledger, run: str | None = None) -> LaunchRecord:
    """Return the newest launch, or the one that `run` names."""
    return ledger.launches[named(ledger, run)]


def named(ledger: Ledger, run: str | None = None) -> str:
    """Return the name of the newest launch, or of the one whose name is `run` or begins with it.

    Raises HarnessError if there is none or several begin with it.
    """
    if not ledger.launches and ledger.damages:
        raise HarnessError(f"No launch is readable; the ledger is damaged: {ledger.damages[0]}.")
    if not ledger.launches:
        raise HarnessError(_without_results(ledger.home))
    last = max(ledger.launches)
    if run is None or run in ledger.launches:
        return run or last
    found = sorted(name for name in ledger.launches if run and name.startswith(run))
    if len(found) > 1:
        raise HarnessError(
            f"'{run}' matches {len(found)} launches of this home, {found[0]} to {found[-1]}; give more of the name."
        )
    if not found:
        raise HarnessError(f"There is no launch '{run}' in this home; the newest is {last} (all: its folder ledger).")
    return found[0]


def _without_results(home: Path | None) -> str:
    if home is None:
        return "There are no results yet; run: harness bench"
    if not home.exists():
        return f"There is no home folder {home}; name another with --home or HARNESS_HOME, or run a bench there."
    return f"{home} holds no results yet; run: harness bench --home {home}"


def names(ledger: Ledger, run: str | None = None) -> list[str]:
    """Return the launches that share a table with the newest, or with `run` and are not after it; oldest first."""
    last = named(ledger, run)
    wanted = ledger.launches[last].table
    return [name for name in sorted(ledger.launches) if name <= last and ledger.launches[name].table == wanted]


def of(ledger: Ledger, run: str | None = None) -> Scope:
    """Return the scope of the newest table, or of the table as of launch `run`. Raises HarnessError without launches.

    The newest launch that names a cell decides whether it is a study or skipped.
    """
    studies: dict[Cell, StudyRecord] = {}
    launch_of: dict[Cell, str] = {}
    skipped: dict[Cell, str] = {}
    cards: Json = {}
    for name in names(ledger, run):
        launch = ledger.launches[name]
        for study in launch.studies:
            skipped.pop(study.cell, None)
            launch_of.pop(study.cell, None)  # so that the cells of `launch_of` stay in the order of their launches
            studies[study.cell], launch_of[study.cell] = study, name
        for left_out in launch.skipped:
            studies.pop(left_out.cell, None)
            launch_of.pop(left_out.cell, None)
            skipped[left_out.cell] = left_out.reason
        cards |= launch.data
    inputs = {cell: _inputs(ledger, studies[cell]) for cell in launch_of}
    outdated = _other_parts(ledger, studies) | _outdated(inputs, cards)
    return Scope(studies, launch_of, inputs, skipped, outdated, cards)


def _other_parts(ledger: Ledger, studies: dict[Cell, StudyRecord]) -> dict[Cell, str]:
    """Return which ensembles combine runs that the rows of their parts no longer have."""
    reasons = {}
    for cell, study in studies.items():
        for part in study.parts:
            combined, now = ledger.confirmations(part), studies.get(part.cell)
            if combined and now is not None and set(combined).isdisjoint(ledger.confirmations(now)):
                reasons[cell] = f"combines earlier runs of {part.cell.adapter} than its row has; {AGAIN}"
    return reasons


def _outdated(inputs: dict[Cell, list[Inputs]], cards: Json) -> dict[Cell, str]:
    """Return why studies with these inputs, oldest first, do not belong beside the others: the data set or the encoded
    texts of that name have changed since."""
    data = {name: card["hash"] for name, card in cards.items()}
    texts = {(c.dataset, c.encoder): i.embedding for c, found in inputs.items() for i in found if i.embedding}
    reasons = {}
    for cell, found in inputs.items():
        for one in found:
            here, text = data.get(cell.dataset, one.data), texts.get((cell.dataset, cell.encoder))
            if one.data and one.data != here:
                reasons[cell] = f"trained on other data (hash {one.data[:8]}, now {here[:8]}); {AGAIN}"
            elif one.embedding and text and one.embedding != text:
                reasons[cell] = f"trained on other texts (hash {one.embedding[:8]}, now {text[:8]}); {AGAIN}"
    return reasons


def _inputs(ledger: Ledger, study: StudyRecord) -> list[Inputs]:
    """Return the inputs of a study's trials, and of those of an ensemble's parts; none before the first trial."""
    ids = chain((i for _, i in ledger.search_ids(study.id, ledger.planned(study))), ledger.confirmations(study))
    first = next((i for i in ids if i in ledger.trials), None)
    own = [] if first is None else [ledger.trials[first].trial.inputs]
    return own + [inputs for part in study.parts for inputs in _inputs(ledger, part)]
