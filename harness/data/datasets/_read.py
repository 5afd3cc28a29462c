"""Convert published files (JSON lines, Python literals, CSV) to parquet in bounded memory, part by part.

Events keep the order of their file, which breaks ties of time.
"""

from __future__ import annotations

import ast
import html
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.data import archives
from harness.types import HarnessError, Json

if TYPE_CHECKING:
    import polars as pl

EVENT_ROWS = 250_000  # per part
ITEM_ROWS = 20_000
GROUP_ROWS = 250_000  # per parquet row group
PROGRESS_ROWS = 100_000  # rows between two progress lines

Record = dict[str, Any]  # a line of an archive


def json_line(line: bytes) -> Any:
    return json.loads(line)


def literal_line(line: bytes) -> Any:
    """Parse a Python literal without evaluating code."""
    return ast.literal_eval(line.decode("utf-8").strip())


def records(
    archive: Path, stream: IO[bytes], parse: Callable[[bytes], Any], wanted: Callable[[bytes], bool] | None = None
) -> Iterator[Record]:
    """Yield the dictionary of each line, without blank lines and lines for which `wanted` is false (before parsing).

    Raises HarnessError if a line is not a dictionary or is too long.
    """
    for number, line in enumerate(archives.lines(archive, stream), 1):
        if not line.strip() or (wanted is not None and not wanted(line)):
            continue
        try:
            record = parse(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise HarnessError(f"{archive}: line {number:,} cannot be read ({str(error)[:80]}).") from None
        if not isinstance(record, dict):
            raise HarnessError(f"{archive}: line {number:,} is not a record of named fields.")
        _print_progress(archive, number)
        yield record


def picked(archive: Path, rows: Iterable[Record], pick: Callable[[Record], tuple | None]) -> Iterator[tuple]:
    """Yield `pick(record)` of each record unless None. Raises HarnessError if a field is missing or malformed."""
    for number, record in enumerate(rows, 1):
        try:
            row = pick(record)
        except KeyError as error:
            raise HarnessError(f"{archive}: record {number:,} has no field {error}.") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise HarnessError(f"{archive}: record {number:,} has an invalid field ({str(error)[:80]}).") from None
        if row is not None:
            yield row


def frames(archive: Path, rows: Iterable[tuple], schema: Json) -> Iterator[pl.DataFrame]:
    """Yield frames of `EVENT_ROWS` rows. Raises HarnessError if a value does not have the schema's type."""
    import polars as pl

    rest = iter(rows)
    while batch := list(islice(rest, EVENT_ROWS)):
        try:
            yield pl.DataFrame(batch, schema=schema, orient="row")
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise HarnessError(f"{archive} has an invalid row: {_first_line(error)}") from None


def csv_frames(
    archive: Path, stream: IO[bytes], columns: list[str], *, header: bool, separator: str = ","
) -> Iterator[pl.DataFrame]:
    """Yield a CSV without quoting in blocks, all columns as text. `separator` may be `::`.

    With `header`, the first line must name the columns. Raises HarnessError if the header or a row has another form.
    """
    import polars as pl

    if header:
        first = stream.readline(archives.MAX_LINE).decode("utf-8", "replace").strip().lstrip("\ufeff")
        if first.split(separator) != columns:
            raise HarnessError(f"{archive} has the columns '{first[:120]}', expected '{separator.join(columns)}'.")
    rows = 0
    for block in archives.blocks(archive, stream):
        if (width := block[: block.find(b"\n")].count(separator.encode()) + 1) != len(columns):
            raise HarnessError(f"{archive} has a row of {width} fields, expected {len(columns)}.")
        if len(separator) > 1:
            block = block.replace(separator.encode(), b"\t")
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                new_columns=columns,
                separator=separator if len(separator) == 1 else "\t",
                quote_char=None,
                infer_schema=False,
            )
        except pl.exceptions.PolarsError as error:
            raise HarnessError(f"{archive} cannot be read as CSV: {_first_line(error)}") from None
        if frame[columns[-1]].null_count():
            raise HarnessError(f"{archive} has a row of fewer than {len(columns)} fields.")
        yield frame
        rows += frame.height
        _print_progress(archive, rows, always=True)


def write_events(
    target: Path, archive: Path, blocks: Iterable[pl.DataFrame], select: Sequence[pl.Expr | str]
) -> set[str]:
    """Write the blocks, each passed through `select`, to `target` and return their item ids.

    Raises HarnessError if a value cannot be cast as `select` demands, or there are no rows.
    """
    import polars as pl

    ids: set[str] = set()

    def parts() -> Iterator[pl.DataFrame]:
        for block in blocks:
            try:
                events = block.select(select)
            except pl.exceptions.PolarsError as error:
                raise HarnessError(f"{archive} has an invalid row: {_first_line(error)}") from None
            ids.update(events["item_id"].unique())
            yield events

    _write_parts(target, archive, parts())
    return ids


def write_items(target: Path, archive: Path, rows: Iterable[Record], schema: Json, wanted: set[str]) -> None:
    """Write one row per wanted id to `target`: its first record, in file order, then nulls for ids without a record.

    Raises HarnessError if no record has a wanted id.
    """
    import polars as pl

    def parts() -> Iterator[pl.DataFrame]:
        missing, batch = set(wanted), []
        for record in rows:
            item = record["item_id"]
            if isinstance(item, str) and item in missing:
                missing.discard(item)
                batch.append(record)
            if len(batch) == ITEM_ROWS:
                yield pl.DataFrame(batch, schema=schema)
                batch = []
        if len(missing) == len(wanted):
            raise HarnessError(f"{archive} has no item of the interactions; the files do not belong together.")
        batch += [{"item_id": item} for item in sorted(missing)]
        for start in range(0, len(batch), ITEM_ROWS):
            yield pl.DataFrame(batch[start : start + ITEM_ROWS], schema=schema)

    _write_parts(target, archive, parts())


def item_schema(*columns: str) -> Json:
    """Return the schema of item_id and text columns; `categories list` is a list of texts."""
    import polars as pl

    kinds = {"": pl.String, "list": pl.List(pl.String)}
    parts = [column.partition(" ") for column in columns]
    return {"item_id": pl.String} | {name: kinds[kind] for name, _, kind in parts}


def clean(value: Any) -> str | None:
    """Return the text with HTML entities (also doubled: `&amp;amp;`) unescaped and without tags and repeated blanks.

    None if nothing is left. Half of a UTF-16 pair, such as a truncated emoji in JSON, becomes U+FFFD.
    """
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        return None
    text = html.unescape(html.unescape(value)) if "&" in value else value
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "<" in text:
        text = re.sub(r"</?[A-Za-z][^<>]*>", " ", text)
    return " ".join(text.split()) or None


def clean_list(values: Any) -> list[str]:
    """Return the distinct clean texts of a list (or list of lists)."""
    texts: dict[str, None] = {}
    for value in values if isinstance(values, list) else [values]:
        for text in clean_list(value) if isinstance(value, list) else [clean(value)]:
            if text:
                texts[text] = None
    return list(texts)


def title_and_year(name: str) -> dict[str, object]:
    """Split MovieLens' `Toy Story (1995)`; a trailing `(V)` (made for video) is dropped."""
    match = re.fullmatch(r"(.+?)\s*\((\d{4})\)\s*(?:\(V\))?", name.strip())
    return {"title": match[1], "year": int(match[2])} if match else {"title": name.strip(), "year": None}


def _write_parts(target: Path, archive: Path, blocks: Iterator[pl.DataFrame]) -> None:
    """Write many frames to one parquet file in bounded memory: each to its own file, then streamed together."""
    from harness.system import parquet

    folder = target.with_suffix(".parts")
    folder.mkdir()
    paths = []
    for block in blocks:
        if block.height:
            paths.append(folder / f"{len(paths):06d}.parquet")
            block.write_parquet(paths[-1])
    if not paths:
        raise HarnessError(f"{archive} has no rows.")
    parquet.scan(paths).sink_parquet(target, row_group_size=GROUP_ROWS, maintain_order=True)
    shutil.rmtree(folder)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def _print_progress(archive: Path, rows: int, *, always: bool = False) -> None:
    if sys.stderr.isatty() and (always or rows % PROGRESS_ROWS == 0):
        print(f"\r{archive.name}: {rows:,} rows read", end="", file=sys.stderr, flush=True)
