"""Open a raw data set by name or folder, and read and check its two files.

The preparation (`harness.data.preparation`) works only on files that passed these checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from harness import registry
from harness.data import data_files, dates, library, scans, templates
from harness.data.findings import titles
from harness.data.findings.ids import VISIBLE
from harness.data.scans import reading
from harness.paths import expanded
from harness.system import decoding, files
from harness.types import HarnessError, digest

SETTINGS = ["name", "text", "licence", "citation", "redistributable", library.MATRICES]
CLOCKS = ("timestamp", "order")
ANSWERS = {"yes": True, "no": False}
TEXT = (pl.String, pl.Categorical, pl.Enum)
WHOLE = r"^\s*([+-]?[0-9]+)\.0*\s*$"  # a whole number that is written with a point
EXACT = 2**53  # from here on, float64 skips whole numbers
LOOK = 10_000  # rows read to choose the text column


@dataclass(frozen=True)
class RawDataset:
    """Two files and how to read them.

    `interactions` (a file or a folder of parts, in a format of `harness.data.data_files`): user_id, item_id, and
    timestamp (seconds) or order or both. `items` (likewise): item_id and text columns. `text`: template of an item's
    text such as `{title} ({year}). {genres}`, empty if the items have no text; a missing field is left out with the
    words before it and the bracket around it. `matrices`: embedding files of its items, by name. `notes`: how files are
    read, where their names do not show it.
    """

    name: str
    interactions: Path
    items: Path
    text: str
    licence: str = ""
    citation: str = ""
    redistributable: bool | None = None  # None: unknown
    matrices: dict[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    choice: titles.TextColumn | None = None  # how `text` was chosen, if neither the folder nor the user sets it
    sparse_ratings: bool = False  # whether events without a rating are meant so


class Unreadable(HarnessError):
    """A data set of which a file cannot be read; `raw` lacks what it would have taken from that file."""

    def __init__(self, message: str, raw: RawDataset) -> None:
        super().__init__(message, raw)  # both, so that it can be pickled
        self.raw = raw

    def __str__(self) -> str:
        return self.args[0]


def open_dataset(word: str, home: Path, text: str = "") -> RawDataset:
    """Open a data set by name or folder; `text` replaces its text template.

    A name is one of the user's folders in `<home>/config.toml`, or a built-in data set, which is downloaded to `home`
    if missing. A folder contains interactions and items (see `harness.data.data_files.data_files`) and optionally
    dataset.toml with name, text, licence, citation, redistributable (yes or no) and a table of embeddings. Raises
    HarnessError if `word` is neither, the config or the folder is malformed, or the template names a missing column;
    Unreadable if a file cannot be read.
    """
    raw = _open(word, home)
    if not text:
        return raw
    try:
        with reading(raw.items):
            scans.scan(raw.items).collect_schema()
    except HarnessError as error:
        raise Unreadable(str(error), raw) from error
    _columns(raw.items, templates.fields(raw.items, text))
    return replace(raw, text=text, choice=None)


def _open(word: str, home: Path) -> RawDataset:
    name, folder = None if "/" in word else library.find(word, home), expanded(word)
    if name is not None:
        return _open_named(name, home)
    if folder.is_dir():
        return _open_folder(folder)
    if "/" in word:
        text = f"{folder} is not a folder; a data set is a folder with interactions and items files."
        raise HarnessError(f"{text} {files.cut_at_comma(folder)}".rstrip())
    hint = registry.suggest(word, library.names(home))
    raise HarnessError(f"There is no data set '{word}' and no folder of that name. {hint}")


def ready(home: Path) -> list[str]:
    """Return the names of the data sets on disk: the user's folders, then the downloaded built-in ones."""
    return library.ready(home)


def register(name: str, folder: Path, home: Path, matrices: dict[str, Path] | None = None) -> RawDataset:
    """Check that a folder and embeddings of its items can be opened, and name them in `<home>/config.toml`.

    Paths in `matrices` are relative to the folder or to the working directory. Raises HarnessError if a file cannot be
    opened, or a name is malformed or taken by another file.
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise HarnessError(f"{folder} is not a folder; a data set is a folder with interactions and items files.")
    raw = _open_folder(folder, name)
    for path, wanted in ((raw.interactions, ["user_id", "item_id"]), (raw.items, ["item_id"])):
        with reading(path):
            _columns(path, wanted)
    paths = {word: _matrix(folder, path) for word, path in (matrices or {}).items()}
    library.write_entry(name, folder, home, paths)
    return replace(raw, matrices=raw.matrices | paths)


def _matrix(folder: Path, path: Path) -> Path:
    path = expanded(path)
    for place in (folder / path, path):
        if place.is_file():
            return place.resolve()
    raise HarnessError(f"There is no file {path}, neither in {folder} nor in the working directory.")


def raw_hash(raw: RawDataset, hashes: dict[str, str] | None = None) -> str:
    """Return the identity of the content: the bytes of both files and the text template, independent of paths.

    `hashes`: those of `file_hashes`, if they are already computed.
    """
    hashes = hashes or file_hashes(raw)
    quotes = {"quotes": "escaped"} if scans.escaped(raw.interactions) or scans.escaped(raw.items) else {}
    quotes |= {"rows": "unquoted"} if scans.unquoted(raw.interactions) or scans.unquoted(raw.items) else {}
    brackets = {"brackets": "balanced"} if _rebalanced(raw) else {}
    return digest({"text": raw.text, **hashes, **quotes, **brackets})


def _rebalanced(raw: RawDataset) -> bool:
    """Return whether the text of some item has brackets in pairs only since this version."""
    names = templates.fields(raw.items, raw.text)
    if (odd := templates.unbalanced(raw.text)) is None:
        return False
    with reading(raw.items):
        return bool(fields(raw.items, names).select(odd.any()).collect().item())


def fields(path: Path, names: list[str]) -> pl.LazyFrame:
    """Return columns of the items as text, each as `field <name>`: str or null.

    Raises HarnessError if one is missing or neither text nor numbers; collect the rows within `scans.reading`.
    """
    rows, kinds = _columns(path, names)
    return rows.select(_field(path, name, kinds[name]) for name in names)


def file_hashes(raw: RawDataset) -> dict[str, str]:
    """Return the sha256 of both files, or a digest of their parts.

    Raises HarnessError if a file is missing or has an unknown suffix.
    """
    for path in (raw.interactions, raw.items):
        if not path.exists() and data_files.kind(path):
            raise HarnessError(f"{path} does not exist.")
        if not (data_files.kind(path) or path.is_dir()):
            raise HarnessError(f"{path} is not a data file; its name must end in {data_files.FORMATS}.")
    return {"interactions": data_files.sha256(raw.interactions), "items": data_files.sha256(raw.items)}


def read_events(path: Path, also: tuple[str, ...] = (), sparse: bool = False) -> pl.DataFrame:
    """Read user_id str, item_id str, timestamp and order if present (numbers), and `also` (numbers), in file order.

    Raises HarnessError if a column is missing, the file is empty or unreadable, an id is null, there is neither
    timestamp nor order, or a value is not a number (nor a date, in timestamp). Nulls are allowed in one of the two if
    the other is complete, and in `also` if that is `sparse`.
    """
    with reading(path):
        rows, kinds = _columns(path, ["user_id", "item_id", *also])
        clocks = [name for name in CLOCKS if name in kinds]
        if not clocks:
            raise HarnessError(
                f"{path} has neither a column 'timestamp' nor a column 'order'; one of them is required."
            )
        ids = (_id(path, name, kinds[name]) for name in ("user_id", "item_id"))
        events = rows.select(*ids, *clocks, *also).collect()
    _check_filled(path, events, ["user_id", "item_id"])
    events = events.with_columns(pl.col(name).fill_nan(None) for name in clocks if events[name].dtype.is_float())
    events = events.with_columns(
        (_times if name == "timestamp" else _numbers)(path, events[name]) for name in (*clocks, *also)
    )
    timed = "timestamp" in clocks and not events["timestamp"].null_count()
    if not timed and "order" in clocks and (gaps := events["order"].null_count()):
        missing = f"order is missing in {gaps:,} of {events.height:,} rows"
        raise HarnessError(f"{path}: {missing}; that is allowed only if every event has a timestamp.")
    _check_filled(path, events, [*([] if "order" in clocks else clocks), *(() if sparse else also)])
    return events


def read_items(path: Path, template: str) -> pl.DataFrame:
    """Read item_id str, text str or null, source_row i64, head str or null (the template's first field), in file order.

    Raises HarnessError if a column is missing, the file is empty or unreadable, or an item_id is null or a duplicate.
    """
    fields = templates.fields(path, template)
    with reading(path):
        rows, kinds = _columns(path, ["item_id", *fields])
        texts = (_field(path, name, kinds[name]) for name in fields)
        items = rows.select(_id(path, "item_id", kinds["item_id"]), *texts).collect()
    _check_filled(path, items, ["item_id"])
    duplicates = items["item_id"].filter(items["item_id"].is_duplicated())
    if len(duplicates):
        raise HarnessError(f"{path}: item_id '{duplicates[0]}' occurs more than once; each item must have one row.")
    head = pl.col(f"field {fields[0]}") if fields else pl.lit(None, pl.String)
    places = pl.int_range(pl.len(), dtype=pl.Int64)
    return items.select("item_id", text=templates.render(template), source_row=places, head=head)


def _open_named(name: str, home: Path) -> RawDataset:
    raw = _named(name, home)
    return replace(raw, matrices=raw.matrices | library.matrices(home).get(name, {}))


def _named(name: str, home: Path) -> RawDataset:
    if (folder := library.folders(home).get(name)) is None:
        source = library.component(name)
        files_of = data_files.data_files(source.fetch(home))
        raw = RawDataset(source.name, *files_of, source.text, source.licence, source.citation, False)
        return replace(raw, sparse_ratings=getattr(source, "sparse_ratings", False))
    if not folder.is_dir():
        raise HarnessError(f"'{name}' is {folder} in {library.config_file(home)}, but that is not a folder.")
    raw = _open_folder(folder, name)
    if name in library.built_in():  # a user's copy stays under the terms of the original
        source = library.component(name)
        terms = {"licence": raw.licence or source.licence, "citation": raw.citation or source.citation}
        sparse = getattr(source, "sparse_ratings", False)
        raw = replace(raw, **terms, redistributable=False, sparse_ratings=sparse)
    return raw


def _open_folder(folder: Path, name: str = "") -> RawDataset:
    """Open the data set in a folder; without `name`, it has that of dataset.toml or of the folder."""
    interactions, items = data_files.data_files(folder)
    settings, matrices = _settings(data_files.settings_file(folder))
    name = name or settings.get("name", folder.resolve().name)
    if not re.fullmatch(library.NAME, name):
        raise HarnessError(f"{folder}: {library.bad_name(name)} Set `name` in dataset.toml.")
    answer = settings.get("redistributable", "")
    if answer and answer not in ANSWERS:
        raise HarnessError(f"{folder / 'dataset.toml'}: redistributable is '{answer}'; it must be yes or no.")
    terms = settings.get("licence", ""), settings.get("citation", ""), ANSWERS.get(answer)
    raw = RawDataset(name, interactions, items, settings.get("text", ""), *terms, matrices)
    return _read_by_default(raw, chosen="text" in settings)


def _read_by_default(raw: RawDataset, *, chosen: bool) -> RawDataset:
    """Add the notes on both files, and the text column unless it is `chosen`. Raises Unreadable."""
    faults: list[HarnessError] = []
    if not chosen:
        try:
            text, choice = _default_text(raw.items)
            raw = replace(raw, text=text, choice=choice)
        except HarnessError as error:
            faults.append(error)
    for path in (raw.interactions, raw.items):
        try:
            with reading(path):
                raw = replace(raw, notes=(*raw.notes, *scans.notes(path)))
        except HarnessError as error:
            faults.append(error)
    if faults:
        raise Unreadable(str(faults[0]), raw)
    return raw


def _settings(path: Path) -> tuple[dict[str, str], dict[str, Path]]:
    """Return the strings of a dataset.toml, and its table of embeddings with absolute paths."""
    if not path.is_file():
        return {}, {}
    try:
        settings = decoding.toml(decoding.text(path))
    except ValueError as error:
        raise HarnessError(f"{path}: not TOML: {error}.") from None
    for key, value in settings.items():
        if key not in SETTINGS:
            raise HarnessError(f"{path}: unknown key '{key}'. {registry.suggest(key, SETTINGS)}")
        if key != library.MATRICES and not isinstance(value, str):
            raise HarnessError(f"{path}: '{key}' must be a string.")
    return settings, library.matrices_of(path, settings.pop(library.MATRICES, {}))


def _default_text(items: Path) -> tuple[str, titles.TextColumn | None]:
    """Return the template {title}, or one of the column most like a title, and how it was chosen."""
    with reading(items):
        schema = scans.kinds(items)
        if "title" in schema:
            return "{title}", None
        texts = [name for name, kind in schema.items() if kind in TEXT and name != "item_id"]
        choice = titles.choose(texts, lambda name: scans.scan(items).select(name).head(LOOK).collect()[name])
    return f"{{{choice.column}}}" if choice.column else "", choice


def _columns(path: Path, wanted: list[str]) -> tuple[pl.LazyFrame, pl.Schema]:
    """Return the rows of a file and the types of its columns.

    Raises HarnessError if a wanted column is missing, or it or a clock occurs twice.
    """
    rows = scans.scan(path)
    kinds = rows.collect_schema()
    scans.refuse_twice(path, [*wanted, *(CLOCKS if "user_id" in wanted else ())])
    if missing := [name for name in wanted if name not in kinds]:
        names = [name if name.isprintable() else repr(name) for name in kinds]
        absent = " nor ".join(f"column '{name}'" for name in missing)
        raise HarnessError(f"{path} has no {absent}. {registry.suggest(missing[0], names)}")
    return rows, kinds


def _id(path: Path, name: str, kind: pl.DataType) -> pl.Expr:
    """Return the id as text, null if empty."""
    # whole numbers are allowed; of floats, 1.0 would not match the 1 of another file
    if not (kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise HarnessError(f"{path}: {name} must be text or whole numbers, not {kind}.")
    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text)


def _field(path: Path, name: str, kind: pl.DataType) -> pl.Expr:
    """Return a text column, null if it has no visible character; the values of a list are joined by commas."""
    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    if inner.is_nested() or inner == pl.Binary:
        raise HarnessError(f"{path}: {name} must be text, numbers or lists of them, not {kind}.")
    if isinstance(kind, pl.List | pl.Array):
        text = pl.col(name).cast(pl.List(pl.String)).list.drop_nulls().list.join(", ")
    else:
        column = pl.col(name).fill_nan(None) if kind.is_float() else pl.col(name)
        text = column.cast(pl.String)
    text = text.str.strip_chars()
    return pl.when(text.str.contains(VISIBLE)).then(text).alias(f"field {name}")


def _check_filled(path: Path, frame: pl.DataFrame, names: list[str]) -> None:
    if frame.is_empty():
        raise HarnessError(f"{path} is empty.")
    for name in names:
        if missing := frame[name].null_count():
            raise HarnessError(
                f"{path}: {name} is missing in {missing:,} of {frame.height:,} rows; every row must have it."
            )


def _times(path: Path, values: pl.Series) -> pl.Series:
    """Return seconds since 1970 as Int64, or as Float64 if they have fractions; nulls stay null."""
    frame = values.to_frame()
    if not dates.are_dates(frame.lazy(), values.name, values.dtype):
        return _numbers(path, values, " (seconds since 1970) or dates (such as 2026-11-29 or 2026-11-29T10:55:30Z)")
    times = frame.select(dates.seconds(values.name, values.dtype)).to_series()
    bad = values.filter(values.is_not_null() & times.is_null())
    if len(bad):
        raise HarnessError(f"{path}: {values.name} has dates such as 2026-11-29T10:55:30Z, but a row has '{bad[0]}'.")
    whole = times.cast(pl.Int64)
    return whole if (whole == times).all() else times


def _numbers(path: Path, values: pl.Series, more: str = "") -> pl.Series:
    """Return the column as Int64, or as Float64 if it has fractions; nulls stay null.

    Raises HarnessError for values that are no numbers, and for those that neither of the two types holds exactly.
    """
    kind = values.dtype
    if not (kind.is_numeric() or kind in (pl.String, pl.Null)):
        raise HarnessError(f"{path}: {values.name} must be numbers{more}, not {kind}.")
    numbers = values.cast(pl.Float64, strict=False)
    bad = values.filter(values.is_not_null() & ~numbers.is_finite().fill_null(False))
    if len(bad):
        raise HarnessError(f"{path}: {values.name} must be numbers{more}, but a row has '{bad[0]}'.")
    if kind == pl.Float32 and values.name == "rating":  # 4.1, not the nearest double of the nearest float
        return values.cast(pl.String).cast(pl.Float64)
    if kind.is_float():
        return numbers
    whole = (values.str.replace(WHOLE, "$1") if kind == pl.String else values).cast(pl.Int64, strict=False)
    if whole.null_count() == values.null_count() and (not kind.is_decimal() or (whole.cast(kind) == values).all()):
        return whole
    large = values.filter(numbers.abs() >= EXACT)
    if len(large):
        raise HarnessError(
            f"{path}: {values.name} has '{large[0]}', and not all are whole numbers below 2^63: large ones would be "
            "rounded. Write all of them as whole numbers."
        )
    return numbers
