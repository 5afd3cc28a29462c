"""Write a working example of a component of one's own, to begin from."""

from __future__ import annotations

import string
from pathlib import Path

from harness import overlay
from harness.paths import expanded
from harness.types import HarnessError

SKELETONS = Path(__file__).parent / "skeletons"
WORDS = {  # as typed -> kind
    "adapter": "adapters",
    "backbone": "backbones",
    "loss": "losses",
    "encoder": "encoders",
    "baseline": "baselines",
    "metric": "metrics",
    "list-metric": "list_metrics",
    "dataset": "datasets",
    "table": "tables",
}
USE = {
    "adapters": "bench --adapters {name}",
    "backbones": "bench --backbones {name}",
    "losses": "bench --set train.loss={name}",
    "encoders": "bench --encoders {name}",
    "datasets": "bench --datasets {word}",
    "tables": "leaderboard --format {name}",
}


def write(word: str, name: str, folder: Path) -> list[Path]:
    """Write the file of a component and, where its kind has one, its search space; return their paths.

    Raises HarnessError for a name that cannot be a component's or is taken, and if a file exists.
    """
    kind, stem = WORDS[word], name.replace("-", "_")
    folder = expanded(folder)
    if Path(stem).name != stem:
        raise HarnessError(f"'{name}' is no name of a component; name its folder with --output.")
    paths = {folder / kind / f"{stem}.py": SKELETONS / f"{kind}.txt"}
    if kind in overlay.WITH_SPACE:
        paths[folder / "search_spaces" / kind / f"{stem}.toml"] = SKELETONS / f"{kind}.toml.txt"
    overlay.check_file(kind, next(iter(paths)))
    if stem.startswith("_"):
        raise HarnessError(f"'{name}' cannot name a component: files that start with _ are helpers. Choose another.")
    for path in paths:
        if path.exists():
            raise HarnessError(f"{path} exists; it is not overwritten. Choose another name or folder.")
    values = {
        "name": stem,
        "word": stem.replace("_", "-"),
        "Name": "".join(part.capitalize() for part in stem.split("_")),
    }
    try:
        for path, skeleton in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(string.Template(skeleton.read_text(encoding="utf-8")).substitute(values))
    except OSError as error:
        raise HarnessError(f"--output {folder} is not writable: {error.strerror}.") from error
    return list(paths)


def next_steps(word: str, name: str, folder: Path) -> str:
    """Return the commands that test and use the component."""
    kind, stem = WORDS[word], name.replace("-", "_")
    lines = [f"Test it:  {overlay.TEST} --components {folder}"]
    if kind in USE:
        use = USE[kind].format(name=stem, word=stem.replace("_", "-"))
        lines.append(f"Use it:   harness {use} --components {folder}")
    return "\n".join(lines)
