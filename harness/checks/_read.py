"""Read the two files leniently: faults that `harness.data.reader` refuses are counted instead where possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from harness.data import dates, scans
from harness.data.reader import CLOCKS, WHOLE
from harness.types import HarnessError

Columns = dict[str, int]


class Unusable(Exception):
    """A file that cannot be checked, with the reason and the remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True, eq=False)
class RawEvents:
    """Interactions that have both ids, in file order, as numbers.

    `user`, `item` int32 (n,): codes into `users`, `items` (their ids, str). `time`, `order` float64 (n,), NaN where
    missing or not a number; None without that column. `rows`: number of rows in the file. `missing`: column -> number
    of rows without a value. `odd`: column -> up to three values that are not numbers.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None
    order: np.ndarray | None
    users: pl.Series
    items: pl.Series
    rows: int
    missing: dict[str, int]
    odd: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def timed(self) -> bool:
        return self.time is not None and not np.isnan(self.time).any()

    @property
    def clock(self) -> np.ndarray | None:
        """The time, or the order if times are missing; two events with equal user, item and clock are repeats."""
        return self.time if self.timed else self.order

    @cached_property
    def per_user(self) -> np.ndarray:
        return np.bincount(self.user, minlength=len(self.users))

    @cached_property
    def per_item(self) -> np.ndarray:
        return np.bincount(self.item, minlength=len(self.items))

    @cached_property
    def offsets(self) -> np.ndarray:
        return np.concatenate(([0], np.cumsum(self.per_user)))

    @cached_property
    def walk(self) -> np.ndarray:
        """Row numbers int64 (n,), user by user, each user's by `order` or, without it, in file order."""
        if self.order is not None:
            rows = np.argsort(self.order, kind="stable")
            return rows[np.argsort(self.user[rows], kind="stable")]
        if (self.user[1:] >= self.user[:-1]).all():
            return np.arange(len(self.user))
        return np.argsort(self.user, kind="stable")

    @cached_property
    def steps_back(self) -> np.ndarray:
        """bool (n - 1,): whether the next event along `walk` is of the same user and has an earlier time."""
        if self.time is None:
            return np.zeros(max(len(self) - 1, 0), bool)
        user = self.user[self.walk]
        back = np.diff(self.time[self.walk]) < 0
        back &= user[1:] == user[:-1]
        if self.order is not None:
            back &= ~np.isnan(self.order[self.walk])[1:]  # events without an order come last, whatever their time
        return back


def events(path: Path) -> RawEvents:
    """Read the interactions. Raises Unusable if the file cannot be read, or a column is missing or has a wrong type."""
    kinds = _kinds(path, ["user_id", "item_id"], CLOCKS)
    clocks = [name for name in CLOCKS if name in kinds]
    for name in ("user_id", "item_id"):
        if not (kinds[name].is_integer() or kinds[name] in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
            raise Unusable(f"{name} is {kinds[name]}, so 1 and 1.0 do not match", f"Write {name} as text.")
    numbers = {name: _number(path, name, kinds[name]) for name in clocks}
    if "order" in numbers:
        numbers["order"] = _ranked("order", kinds["order"], numbers["order"])
    frame = _collect(path, [*(_id(name) for name in ("user_id", "item_id")), *numbers.values()])
    rows = frame.height
    missing = {name: frame[name].null_count() for name in ("user_id", "item_id")}
    if any(missing.values()):
        frame = frame.drop_nulls(["user_id", "item_id"])
    if not rows:
        raise Unusable("it is empty", "Write the interactions into the file.")
    if not frame.height:
        raise Unusable("no row has both a user_id and an item_id", "Write the interactions into the file.")
    missing |= {name: frame[name].null_count() for name in clocks}
    odd = {
        name: _odd(path, name, number) if kinds[name] == pl.String and missing[name] else []
        for name, number in numbers.items()
    }
    values = {name: frame[name].fill_null(np.nan).to_numpy() for name in clocks}
    (user, users), (item, items) = _codes(frame["user_id"]), _codes(frame["item_id"])
    time, order = values.get("timestamp"), values.get("order")
    return RawEvents(user, item, time, order, users, items, rows, missing, odd)


def ratings(path: Path) -> np.ndarray:
    """Return the ratings float64 (n,) of the rows of `events`, NaN where missing. Raises Unusable as `events` does."""
    rating = _number(path, "rating", _kinds(path, ["rating"])["rating"])
    frame = _collect(path, [*(_id(name) for name in ("user_id", "item_id")), rating])
    return frame.drop_nulls(["user_id", "item_id"])["rating"].fill_null(np.nan).to_numpy()


def item_ids(path: Path) -> pl.Series:
    """Return the item ids of the items file as text, null where missing. Raises Unusable as `events` does."""
    _kinds(path, ["item_id"])
    text = pl.col("item_id").cast(pl.String)
    return _collect(path, [pl.when(text != "").then(text).alias("item_id")])["item_id"]


def _scan(path: Path) -> pl.LazyFrame:
    return scans.scan(path)


def _kinds(path: Path, wanted: list[str], also: tuple[str, ...] = ()) -> pl.Schema:
    """Return column -> type. Raises Unusable if a wanted column is missing, or it or one of `also` occurs twice."""
    try:
        kinds = _scan(path).collect_schema()
        scans.refuse_twice(path, [*wanted, *also])
    except (pl.exceptions.PolarsError, OSError, HarnessError) as error:
        raise _unreadable(path, error) from None
    if missing := [name for name in wanted if name not in kinds]:
        columns = ", ".join(column if column.isprintable() else repr(column) for column in kinds)
        names = " nor ".join(missing)
        remedy = f"Name {'a column' if len(missing) == 1 else 'columns'} {' and '.join(missing)}."
        raise Unusable(f"there is no column {names}; the columns are: {columns}", remedy)
    return kinds


def _collect(path: Path, columns: list[pl.Expr]) -> pl.DataFrame:
    try:
        return _scan(path).select(columns).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> Unusable:
    if isinstance(error, pl.exceptions.NoDataError):
        return Unusable("it is empty", "Write the file again.")
    text = str(error) if isinstance(error, HarnessError) else scans.sentence(path, scans.reason(path, error))
    reason = text.removeprefix(f"{path}: ").removeprefix(f"{path}/")
    if text.startswith(f"{path} "):  # such as "<path> cannot be read", "<path> contains gzip data"
        reason = f"it{text.removeprefix(str(path))}"
    return Unusable(reason.rstrip("."), "Write the file again.")


def _id(name: str) -> pl.Expr:
    """Return the id as a categorical, null if empty: it takes a tenth of the memory of the text."""
    text = pl.col(name).cast(pl.String)
    kind = pl.Categorical(pl.Categories.random())  # a separate category table, freed with the frame
    return pl.when(text != "").then(text).cast(kind).alias(name)


def _number(path: Path, name: str, kind: pl.DataType) -> pl.Expr:
    """Return a clock as a finite Float64 or null. Raises Unusable if it can be neither numbers nor dates."""
    if name == "timestamp" and dates.are_dates(_scan(path), name, kind):
        return dates.seconds(name, kind)
    if not (kind.is_numeric() or kind in (pl.String, pl.Null)):
        raise Unusable(f"{name} is {kind}, not a number", f"Write {name} as numbers.")
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number).alias(name)


def _ranked(name: str, kind: pl.DataType, number: pl.Expr) -> pl.Expr:
    """Return the dense rank of an order, which float64 holds where it would round a long number."""
    column = pl.col(name)
    if kind == pl.String:
        whole = column.str.replace(WHOLE, "$1").cast(pl.Int64, strict=False)
        column = pl.when((whole.is_not_null() | number.is_null()).all()).then(whole.rank("dense"))
        return column.otherwise(number.rank("dense")).cast(pl.Float64).alias(name)
    return pl.when(number.is_not_null()).then(column).rank("dense").cast(pl.Float64).alias(name)


def _odd(path: Path, name: str, number: pl.Expr) -> list[str]:
    no_number = pl.col(name).is_not_null() & number.is_null()
    return _scan(path).filter(no_number).select(name).head(3).collect()[name].to_list()


def _codes(values: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Return codes int32 (n,) into the sorted ids, and those ids."""
    ids = pl.DataFrame({"id": values.unique()}).with_columns(code=pl.col("id").to_physical())
    ids = ids.with_columns(pl.col("id").cast(pl.String)).sort("id")
    place = np.zeros(int(ids["code"].max()) + 1, np.int32)  # type: ignore[arg-type]
    place[ids["code"].to_numpy()] = np.arange(ids.height, dtype=np.int32)
    return place[values.to_physical().to_numpy()], ids["id"]
