"""The README of a publication."""

from __future__ import annotations

from harness.types import Json

TEXT = """# Results of harness

Written on {created} by harness {harness} (code {code}). This folder stands alone: it needs neither the home that it
came from nor the data sets.

## Verify

```bash
harness verify .
```

With harness installed, this checks the sha256 of every file, replays the ledger, recomputes every table from the
ranks, and compares them cell by cell. `harness merge . --home HOME` adds the results to a home of yours.

## Files

| file | content |
|---|---|
| `leaderboard.md`, `.csv`, `.parquet`, `.html` | the table; other protocols or budgets in `tables/` |
| `trials.parquet` | every trial with parameters, curve and outcome |
| `studies/` | the study file of each launch |
| `ranks/<trial>.parquet` | ranks of the test targets of one run |
| `spectra/<trial>.json` | singular values of the item table before and after training |
| `ledger/<run>.jsonl.gz` | the recorded events, one JSON object per line |
| `manifest.json` | sha256 of every file, versions, data hashes, `runs` (row and seed of trials), `folds` (windows) |

Columns of `ranks/`, all 32-bit integers, one line per test target:

| column | meaning |
|---|---|
| `user` | number that the preparation gave the user, from 0; no id of the data set |
| `low`, `high` | best and worst rank of the target among all candidates, from 1; they differ if scores tie |

## Removed

Links to tracking servers, folders of absolute paths and IP addresses are removed from the events; changed lines have a
new checksum. Nothing of the data sets is here: no interactions, ids, texts, embeddings, model weights or lists.

## Licences

{data}
{encoders}
- harness: Apache-2.0.

## Citation

Cite the data sets above, the papers of the adapters and backbones (`harness show NAME`), and harness: its CITATION.cff.
"""


def text(manifest: Json) -> str:
    """Return the README in Markdown."""
    data = [_data(name, card) for name, card in sorted(manifest["data"].items())]
    encoders = [f"- Encoder `{name}`: {_licence(name)}." for name in manifest["encoders"]]
    return TEXT.format(
        created=manifest["created"], **manifest["written_by"], data="\n".join(data), encoders="\n".join(encoders)
    )


def _data(name: str, card: Json) -> str:
    licence, citation = card["licence"] or "licence not stated", card["citation"] or "citation not stated"
    return f"- Data set `{name}` (content hash {card['hash']}): {licence}. Cite: {citation}."


def _licence(encoder: str) -> str:
    if encoder == "minilm":
        return "all-MiniLM-L6-v2, Apache-2.0"
    if encoder == "noise":
        return "random numbers, no licence"
    return "see the licence of its model"
