"""From published files to parquet in bounded memory: JSON lines, Python literals and CSV, part by part.

Events keep the order of their file: it decides ties where the clock does not.
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
from harness.types import HarnessError

if TYPE_CHECKING:
    import polars as pl

EVENT_ROWS = 250_000  # of a part
ITEM_ROWS = 20_000
GROUP_ROWS = 250_000  # of a parquet row group
TELL_ROWS = 100_000

Record = dict[str, Any]


def json_line(line: bytes) -> Any:
    return json.loads(line)


def literal_line(line: bytes) -> Any:
    """A Python literal; nothing is evaluated."""
    return ast.literal_eval(line.decode("utf-8").strip())


def records(
    archive: Path, stream: IO[bytes], parse: Callable[[bytes], Any], wanted: Callable[[bytes], bool] | None = None
) -> Iterator[Record]:
    """The dictionaries of a stream's lines; blank lines, and those that `wanted` turns down unread, left out.

    Raises HarnessError for a line that is none, or too long.
    """
    for number, line in enumerate(archives.lines(archive, stream), 1):
        if not line.strip() or (wanted is not None and not wanted(line)):
            continue
        try:
            record = parse(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise HarnessError(f"{archive}: line {number:,} cannot be read ({str(error)[:80]}).") from None
        if not isinstance(record, dict):
            raise HarnessError(f"{archive}: line {number:,} is no record of named fields.")
        _tell(archive, number)
        yield record


def picked(archive: Path, found: Iterable[Record], pick: Callable[[Record], tuple | None]) -> Iterator[tuple]:
    """`pick` of each record, None left out. Raises HarnessError where a record lacks a field or has a bad one."""
    for number, record in enumerate(found, 1):
        try:
            row = pick(record)
        except KeyError as error:
            raise HarnessError(f"{archive}: record {number:,} has no field {error}.") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise HarnessError(f"{archive}: record {number:,} has a bad field ({str(error)[:80]}).") from None
        if row is not None:
            yield row


def frames(archive: Path, rows: Iterable[tuple], schema: dict[str, Any]) -> Iterator[pl.DataFrame]:
    """Rows in frames of `EVENT_ROWS`. Raises HarnessError for a value of another type than the schema's."""
    import polars as pl

    rest = iter(rows)
    while batch := list(islice(rest, EVENT_ROWS)):
        try:
            yield pl.DataFrame(batch, schema=schema, orient="row")
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise HarnessError(f"{archive}: a row is not as it should be: {_first_line(error)}") from None


def csv_frames(
    archive: Path, stream: IO[bytes], columns: list[str], *, header: bool, separator: str = ","
) -> Iterator[pl.DataFrame]:
    """Blocks of a CSV of unquoted values, all as text. `separator` may be `::`. With `header` the first line must
    name the columns. Raises HarnessError where the header or a row has another form."""
    import polars as pl

    if header:
        first = stream.readline(archives.MAX_LINE).decode("utf-8", "replace").strip().lstrip("\ufeff")
        if first.split(separator) != columns:
            raise HarnessError(f"{archive}: its columns are '{first[:120]}'; {separator.join(columns)} is expected.")
    rows = 0
    for block in archives.blocks(archive, stream):
        if (width := block[: block.find(b"\n")].count(separator.encode()) + 1) != len(columns):
            raise HarnessError(f"{archive}: a row has {width} fields; {len(columns)} are expected.")
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
            raise HarnessError(f"{archive}: it cannot be read as CSV: {_first_line(error)}") from None
        if frame[columns[-1]].null_count():
            raise HarnessError(f"{archive}: a row has fewer than {len(columns)} fields.")
        yield frame
        rows += frame.height
        _tell(archive, rows, always=True)


def write_events(
    target: Path, archive: Path, found: Iterable[pl.DataFrame], select: Sequence[pl.Expr | str]
) -> set[str]:
    """`target` from frames, each through `select`; the item ids in it.

    Raises HarnessError if a value cannot be what `select` casts it to, or there is no row.
    """
    import polars as pl

    ids: set[str] = set()

    def parts() -> Iterator[pl.DataFrame]:
        for frame in found:
            try:
                events = frame.select(select)
            except pl.exceptions.PolarsError as error:
                raise HarnessError(f"{archive}: a row is not as it should be: {_first_line(error)}") from None
            ids.update(events["item_id"].unique())
            yield events

    _write_parts(target, archive, parts())
    return ids


def write_items(target: Path, archive: Path, found: Iterable[Record], schema: dict[str, Any], wanted: set[str]) -> None:
    """`target` with one row for each wanted id: the first record of it, in file order, and behind them the ids
    that have none, with nulls. Raises HarnessError if no record fits.
    """
    import polars as pl

    def parts() -> Iterator[pl.DataFrame]:
        missing, batch = set(wanted), []
        for record in found:
            item = record["item_id"]
            if isinstance(item, str) and item in missing:
                missing.discard(item)
                batch.append(record)
            if len(batch) == ITEM_ROWS:
                yield pl.DataFrame(batch, schema=schema)
                batch = []
        if len(missing) == len(wanted):
            raise HarnessError(f"{archive}: none of its items is among the interactions'; the files do not belong.")
        batch += [{"item_id": item} for item in sorted(missing)]
        for start in range(0, len(batch), ITEM_ROWS):
            yield pl.DataFrame(batch[start : start + ITEM_ROWS], schema=schema)

    _write_parts(target, archive, parts())


def item_schema(*columns: str) -> dict[str, Any]:
    """item_id and text columns; `categories list` is a list of texts."""
    import polars as pl

    kinds = {"": pl.String, "list": pl.List(pl.String)}
    parts = [column.partition(" ") for column in columns]
    return {"item_id": pl.String} | {name: kinds[kind] for name, _, kind in parts}


def clean(value: Any) -> str | None:
    """Text without tags, HTML entities (they may be doubled: `&amp;amp;`) and runs of blanks; None if nothing is left.
    Half a pair of UTF-16, such as the cut off emoji of a JSON file, becomes U+FFFD."""
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
    """The clean texts of a list (or list of lists), each once."""
    texts: dict[str, None] = {}
    for value in values if isinstance(values, list) else [values]:
        for text in clean_list(value) if isinstance(value, list) else [clean(value)]:
            if text:
                texts[text] = None
    return list(texts)


def title_and_year(name: str) -> dict[str, object]:
    """MovieLens' `Toy Story (1995)` in two; `(V)`, made for video, is dropped."""
    match = re.fullmatch(r"(.+?)\s*\((\d{4})\)\s*(?:\(V\))?", name.strip())
    return {"title": match[1], "year": int(match[2])} if match else {"title": name.strip(), "year": None}


def _write_parts(target: Path, archive: Path, found: Iterator[pl.DataFrame]) -> None:
    """One parquet of many frames, none of which is held: they go to disk one by one and are streamed together."""
    import polars as pl

    folder = target.with_suffix(".parts")
    folder.mkdir()
    paths = []
    for frame in found:
        if frame.height:
            paths.append(folder / f"{len(paths):06d}.parquet")
            frame.write_parquet(paths[-1])
    if not paths:
        raise HarnessError(f"{archive} has no rows.")
    pl.scan_parquet(paths).sink_parquet(target, row_group_size=GROUP_ROWS, maintain_order=True)
    shutil.rmtree(folder)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def _tell(archive: Path, rows: int, *, always: bool = False) -> None:
    if sys.stderr.isatty() and (always or rows % TELL_ROWS == 0):
        print(f"\r{archive.name}: {rows:,} rows read", end="", file=sys.stderr, flush=True)
