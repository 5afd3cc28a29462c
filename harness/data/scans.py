"""Scan a data file of any supported format: Parquet or delimited text, one file or a folder of parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from harness.data import data_files, delimited
from harness.system import parquet
from harness.types import HarnessError

TEXTS = (pl.String, pl.Categorical, pl.Enum)


def scan(path: Path) -> pl.LazyFrame:
    """Return the rows of a data file, parts in order; columns of delimited text are strings.

    Raises HarnessError if parts have different columns, a file does not match its suffix, or as `data_files.parts`
    does.
    """
    parts = data_files.parts(path)
    if parts == [path]:
        return _scan(path)
    schemas = [parquet.schema(part) if _is_parquet(part) else None for part in parts]
    if schemas[0] is not None and all(schema == schemas[0] for schema in schemas) and parts[0].parent == path:
        return parquet.scan(parts)
    return _joined(path, parts)


def kinds(path: Path) -> pl.Schema:
    """Return column -> type; for delimited text, inferred from the first rows. Raises HarnessError as `scan` does."""
    if path.is_dir():
        first = _filled(data_files.parts(path))[0]
        return scan(path).collect_schema() if _is_parquet(first) else delimited.kinds(first)
    return _scan(path).collect_schema() if _is_parquet(path) else delimited.kinds(path)


def notes(path: Path) -> list[str]:
    """Return a sentence on how a data file is read, or [] if its name shows it. Raises HarnessError as `scan` does."""
    parts = data_files.parts(path)
    dialects = [delimited.dialect(part) for part in parts if not _is_parquet(part)]
    forms = dict.fromkeys(f"as {dialect.form} text" for dialect in dialects if dialect.form)
    traits = dict.fromkeys(trait for dialect in dialects for trait in dialect.traits)
    words = [f"as {len(parts):,} parts ordered by name"] if len(parts) > 1 else []
    words += [*forms, *([f"with {', '.join(traits)}"] if traits else [])]
    return [f"{path.name} is read {' '.join(words)}"] if words else []


def escaped(path: Path) -> bool:
    """Return whether the file escapes quotes with backslashes, which earlier versions read differently."""
    return any(not _is_parquet(part) and delimited.dialect(part).escaped for part in data_files.parts(path))


def unquoted(path: Path) -> bool:
    """Return whether quotes that span rows are read as plain characters; earlier versions joined the rows."""
    styles = [delimited.dialect(part) for part in data_files.parts(path) if not _is_parquet(part)]
    return any(style.swallows and style.quote is None for style in styles)


def refuse_twice(path: Path, names: list[str]) -> None:
    """Raise HarnessError if delimited text has several columns of one of these names."""
    for part in data_files.parts(path):
        twice = () if _is_parquet(part) else delimited.dialect(part).twice
        if name := next((name for name in names if name in twice), ""):
            raise HarnessError(f"{part}: the column {name} occurs more than once in the header; rename or drop one.")


def joined(path: Path, column: str) -> tuple[list[str], int]:
    """Return the values of `column` in lines within quoted values that look like rows, and the number of all lines."""
    pairs = [delimited.joined(part, column) for part in data_files.parts(path) if not _is_parquet(part)]
    return [value for values, _ in pairs for value in values], sum(lines for _, lines in pairs)


def reason(path: Path, error: Exception) -> str:
    """Return why a data file could not be read, with the part, the line and the remedy if they can be found."""
    parts = [] if isinstance(error, OSError) and error.errno else data_files.parts(path)
    for part in parts:
        inside = "" if part == path else f"{part.relative_to(path)}: "
        if _is_parquet(part):
            try:
                parquet.schema(part)
            except (pl.exceptions.PolarsError, OSError) as fault:
                return f"{inside}cannot be read as parquet: {_first_line(fault)}"
        elif fault := delimited.fault(part):
            return inside + fault
    return f"cannot be read as {data_files.kind(path)[1:] or 'data'}: {_first_line(error)}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of polars on a data file into a HarnessError of one line."""
    try:
        yield
    except pl.exceptions.NoDataError:
        raise HarnessError(f"{path} is empty.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HarnessError(sentence(path, reason(path, error))) from None


def sentence(path: Path, why: str) -> str:
    """Join a file and the reason why it cannot be read to one line."""
    return f"{path} {why}" if why.startswith("cannot") else f"{path}: {why}"


def _scan(path: Path) -> pl.LazyFrame:
    return parquet.scan(path) if _is_parquet(path) else delimited.scan(path)


def _is_parquet(path: Path) -> bool:
    return data_files.kind(path) == data_files.PARQUET


def _joined(path: Path, parts: list[Path]) -> pl.LazyFrame:
    """Concatenate parts with equal columns. Raises HarnessError if their columns differ."""
    frames, parts = [], _filled(parts)
    for part in parts:
        values = [pl.lit(value, pl.String).alias(key) for key, value in data_files.partition(part, path).items()]
        frames.append(_scan(part).with_columns(values))
    first = frames[0].collect_schema()
    for part, frame in zip(parts, frames, strict=True):
        schema = frame.collect_schema()
        name = next((n for n in [*first, *schema] if not _alike(first.get(n), schema.get(n))), None)
        if name is not None:
            kinds = [f"{p.relative_to(path)} ({s.get(name, 'absent')})" for p, s in ((parts[0], first), (part, schema))]
            raise HarnessError(
                f"{path}: the column {name} differs between {kinds[0]} and {kinds[1]}; write all parts with one schema."
            )
    text = [name for name, kind in first.items() if kind in TEXTS]
    return pl.concat([f.select(*first).cast(dict.fromkeys(text, pl.String)) for f in frames], how="vertical_relaxed")


def _filled(parts: list[Path]) -> list[Path]:
    """Return the parts that are not empty: Spark writes empty files for partitions without rows."""
    return [part for part in parts if _is_parquet(part) or not delimited.dialect(part).empty] or parts[:1]


def _alike(one: pl.DataType | None, other: pl.DataType | None) -> bool:
    if one is None or other is None:
        return False
    same_sort = (one.is_numeric() and other.is_numeric()) or (one in TEXTS and other in TEXTS)
    return one == other or pl.Null in (one, other) or same_sort


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
