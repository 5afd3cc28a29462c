"""A static index page over the publications under a folder: one HTML file, no scripts, no network."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from harness.system.files import write_text
from harness.types import HarnessError, Json
from harness.workflows import publication

NAME = "index.html"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Published results</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } a { color: #8bf } }
</style>
<h1>Published results</h1>
<p>{{ entries | length }} publications. Check one with <code>harness verify FOLDER</code>.</p>
<table>
<thead><tr><th>name</th><th>date</th><th>data sets</th><th>protocols</th><th>best rows</th></tr></thead>
<tbody>
{% for entry in entries %}
<tr><td><a href="{{ entry.link }}">{{ entry.name }}</a></td><td>{{ entry.date }}</td>
<td>{{ entry.data | join(", ") }}</td><td>{{ entry.protocols | join(", ") }}</td>
<td>{% for line in entry.best %}{{ line }}<br>{% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</html>
"""


def write(folder: Path) -> tuple[Path, int, list[str]]:
    """Write ``index.html`` into the folder; return it, the number of publications and the folders left out, with
    reasons. Raises HarnessError if the folder does not exist or holds no publication."""
    if not folder.is_dir():
        raise HarnessError(f"--index {folder}: no such folder.")
    entries, left_out = [], []
    for manifest in sorted(folder.rglob(publication.MANIFEST)):
        if any(part.startswith(".") for part in manifest.relative_to(folder).parts):
            continue  # one that is being written, or was when its process was killed
        try:
            entries.append(_entry(folder, publication.find(manifest.parent)))
        except HarnessError as error:
            left_out.append(str(error))
        except (KeyError, TypeError, ValueError, AttributeError):
            left_out.append(f"{manifest.parent}: its {publication.MANIFEST} is damaged")
    if not entries:
        raise HarnessError(f"--index {folder} holds no publication. Write one with: harness publish {folder}/NAME")
    entries.sort(key=lambda entry: (entry["date"], entry["name"]), reverse=True)
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE).render(entries=entries)
    write_text(folder / NAME, page)
    return folder / NAME, len(entries), left_out


def _entry(root: Path, found: publication.Publication) -> Json:
    name = found.folder.relative_to(root).as_posix()
    shown = list(found.manifest["tables"].values())
    return {
        "name": root.resolve().name if name == "." else name,
        "link": quote(f"{name}/leaderboard.html"),
        "date": found.manifest["created"],
        "data": sorted(found.manifest["data"]),
        "protocols": list(dict.fromkeys(_protocol(table) for table in shown)),
        "best": [_best(table["headline"], best) for table in shown for best in table["best"]],
    }


def _protocol(table: Json) -> str:
    budget = table["budget"]
    return (
        f"{table['protocol']['split']}, {budget['trials']} trials, {budget['epochs']} epochs, {budget['seeds']} seeds"
    )


def _best(metric: str, row: Json) -> str:
    low, high = ("–" if row[end] is None else f"{row[end]:.4f}" for end in ("low", "high"))
    score = f"{metric} {row['mean']:.4f} [{low}, {high}]"
    return f"{row['dataset']}, {row['backbone']}: {row['adapter']}, {score}"
