"""Dates of papers: which column has them, what its values mean, and which look invented.

Legend: N papers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.diagnosis import quote
from citeflow.data.tables import (
    Column,
    TableFile,
    as_mask,
    as_numbers,
    as_text,
    is_number,
    is_text,
    reading,
    wrong_type,
)
from citeflow.errors import DataError

ISO_DATE = r"^\d{4}(-\d{2}(-\d{2}([T ].*)?)?)?$"
WITH_OFFSET = r"^\d{4}-\d{2}-\d{2}[T ].*(Z|[+-]\d{2}:?\d{2})$"
BASIC_DATE = r"^(\d{4})(\d{2})(\d{2})$"
YEAR = r"^\s*\d{1,4}(\.0*)?\s*$"
EPOCH = date(1970, 1, 1)
FIRST_DAY = (date.min - EPOCH).days
LAST_DAY = (date.max - EPOCH).days

LIKE_A_DATE = re.compile(
    r"(pub|publ|publish|published|publication|publishing|release|released|issue|issued|print|"
    r"paper|article|cover|submission|submitted)?(year|yr|date)"
    r"(s?published|of(publication|issue)|issued|pub|printed)?"
    r"|published(on|at|in)?|pubyr|publicationyr|py|yr|issued|jahr|annee|anno|ano"
)
"""Names of columns of time, in lower case and without other signs than letters."""

MISSING = ("", "nan", "na", "n/a", "nat", "null", "none", "nil", "-", "?", "unknown")
"""Texts, in lower case, that stand for a missing date."""

PLACEHOLDERS = tuple(map(date.fromisoformat, ("0001-01-01", "1900-01-01", "1970-01-01")))
PLACEHOLDERS += tuple(map(date.fromisoformat, ("1899-12-30", "1899-12-31", "1969-12-31")))
LARGEST_BASIC_DATE = 9999_12_31
FIRST_MILLISECOND = 10**11
LAST_MILLISECOND = 10**13
"""Larger whole numbers than a date count seconds since 1970, or milliseconds from 10^11 on."""

GAP_DAYS = 5 * 365
MIN_PLACEHOLDERS = 2
MUCH_MORE = 5
NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Dates:
    """Dates of all papers."""

    name: str
    """The column that they come from."""

    day_N: np.ndarray
    """Days since 1970-01-01, int32; the median where none is known."""

    is_dated_N: np.ndarray | None = None
    """False where none is known; None if all are."""

    remark: str = ""
    """Dates that look invented."""


def find_time_columns(columns: Mapping[str, Column]) -> list[str]:
    """List the columns that hold a time, by name and by value, the one to take first."""
    if "year" in columns or "date" in columns:
        own = [name for name in ("date", "year") if name in columns]
        return own + [name for name in columns if name not in own and _is_time(name, columns[name])]
    found = [name for name in columns if _is_time(name, columns[name])]
    # A date says more than a year.
    return sorted(found, key=lambda name: (is_number(columns[name].type), found.index(name)))


def read_dates(papers: TableFile, name: str, column: Column, *, without_date: str) -> Dates:
    """Read the dates of a column.

    Args:
        papers: the table.
        name: of the column.
        column: years as numbers or text, or dates.
        without_date: `refuse`, or else papers may have none, and placeholders count as none.

    Raises:
        DataError: a value is no date, or missing where it must not be, or all are.
    """
    kind = column.type
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    if not is_time and not is_text(kind) and not is_number(kind):
        wanted = "whole numbers such as 1999" if name == "year" else "text such as 1999-12-31"
        raise wrong_type(papers, name, column, wanted)
    is_missing_N = _is_missing(column)
    if is_missing_N.any() and without_date == "refuse":
        where = papers.where(int(np.argmax(is_missing_N)))
        raise DataError(
            f"{where}: column {quote(name)} has no value",
            f"{np.count_nonzero(is_missing_N):,} of {len(is_missing_N):,} are empty",
            hint="fill it for every paper, or leave these papers out with "
            "--set data.without_date=drop, or keep them without a date with "
            "data.without_date=undated",
        )
    if is_missing_N.all():
        raise DataError(f"{papers.path}: no paper has a value", quote(name))
    day_N = _days(papers, name, _filled(column, is_missing_N))
    dates = Dates(name=name, day_N=day_N)
    if is_missing_N.any():
        usual = np.int32(np.median(day_N[~is_missing_N]))
        day_N = np.where(is_missing_N, usual, day_N)
        dates = replace(dates, day_N=day_N, is_dated_N=~is_missing_N)
    return _without_placeholders(dates, is_kept=without_date == "refuse")


def _without_placeholders(dates: Dates, *, is_kept: bool) -> Dates:
    """Name the dates that look as if they stood for an unknown one, and take them for missing.

    Args:
        dates: as they were read.
        is_kept: True takes them as they are, and warns.
    """
    is_dated_N = dates.is_dated_N
    if is_dated_N is None:
        is_dated_N = np.ones(len(dates.day_N), dtype=bool)
    suspects = _placeholders(dates.day_N[is_dated_N])
    is_suspect_N = np.isin(dates.day_N, suspects) & is_dated_N
    num = int(is_suspect_N.sum())
    if not num or num == is_dated_N.sum():
        return dates
    shown = ", ".join(str(np.datetime64(day, "D")) for day in suspects[:NUM_SHOWN])
    what = f"{num:,} of {len(is_dated_N):,} papers have a date that looks like a placeholder"
    if is_kept:
        advice = "test sources are the newest papers: set data.without_date=drop or undated"
        return replace(dates, remark=f"WARNING: {what} ({shown}); {advice}")
    is_dated_N = is_dated_N & ~is_suspect_N
    day_N = np.where(is_dated_N, dates.day_N, np.int32(np.median(dates.day_N[is_dated_N])))
    remark = f"{what} ({shown}), taken for none"
    return replace(dates, day_N=day_N, is_dated_N=is_dated_N, remark=remark)


def _placeholders(day_S: np.ndarray) -> list[int]:
    """List the days that defaults have, and those of papers that are not yet there."""
    day_U, num_U = np.unique(day_S, return_counts=True)
    # Journals date issues ahead, but not by years.
    last = _day(date(date.today().year + 1, 12, 31))
    return [
        day
        for index, day in enumerate(day_U.tolist())
        if day > last or _is_placeholder(index, day_U, num_U)
    ]


def _is_placeholder(index: int, day_U: np.ndarray, num_U: np.ndarray) -> bool:
    """True for a day that defaults have, if it stands apart from others or has far more papers."""
    if day_U[index] not in map(_day, PLACEHOLDERS) or num_U[index] < MIN_PLACEHOLDERS:
        return False
    if len(day_U) == 1:
        return False
    stands_apart = index == 0 and day_U[1] - day_U[0] >= GAP_DAYS
    return bool(stands_apart or num_U[index] >= MUCH_MORE * np.median(np.delete(num_U, index)))


def _day(day: date) -> int:
    return (day - EPOCH).days


def _is_time(name: str, column: Column) -> bool:
    plain = re.sub(r"[^a-zà-ÿ]", "", name.lower()).replace("é", "e").replace("ñ", "n")
    if name in ("year", "date") or not LIKE_A_DATE.fullmatch(plain):
        return False
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return True
    some = column.filter(pa.array(~_is_missing(column)))
    if not len(some):
        return False
    if is_number(column.type) and not pa.types.is_boolean(column.type):
        value_S = np.asarray(some.cast(pa.float64(), safe=False))
        is_year_S = (value_S >= 1) & (value_S <= 9999) & (value_S == np.floor(value_S))
        is_date_S = (value_S >= 1000_01_01) & (value_S <= 9999_12_31)
        is_instant_S = (value_S > LARGEST_BASIC_DATE) & (value_S < LAST_MILLISECOND)
        return bool(max(is_year_S.mean(), is_date_S.mean(), is_instant_S.mean()) > 0.5)
    if not is_text(column.type):
        return False
    looks_S = as_mask(pc.match_substring_regex(as_text(some), f"{ISO_DATE}|{YEAR}|{BASIC_DATE}"))
    return bool(looks_S.mean() > 0.5)


def _is_missing(column: Column) -> np.ndarray:
    if is_text(column.type):
        plain = pc.utf8_lower(pc.utf8_trim_whitespace(as_text(column)))
        return as_mask(pc.is_in(plain, value_set=pa.array(MISSING)))
    return as_mask(column.is_null(nan_is_null=True))


def _filled(column: Column, is_missing_N: np.ndarray) -> Column:
    """Put a date where none is known, so that the others keep their rows."""
    if not is_missing_N.any():
        return column
    column = as_text(column) if is_text(column.type) else column
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64(), safe=False)
    stand_in: object = date(2000, 1, 1)
    if is_text(column.type):
        stand_in = "2000"
    elif is_number(column.type):
        stand_in = 1
    scalar = pa.scalar(stand_in).cast(column.type)
    return pc.if_else(pa.array(is_missing_N), scalar, column.combine_chunks())


def _days(papers: TableFile, name: str, column: Column) -> np.ndarray:
    if pa.types.is_integer(column.type) and (fewest := pc.min(column).as_py()) > 9999:
        if fewest > LARGEST_BASIC_DATE:
            unit = "s" if fewest < FIRST_MILLISECOND else "ms"
            with reading(papers.path):
                column = column.cast(pa.timestamp(unit, "UTC"))
        else:
            column = column.cast(pa.string())  # 19991231
    elif name == "date" and is_number(column.type):
        raise wrong_type(papers, name, column, "dates or text such as 1999-12-31")
    is_time = pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)
    if is_number(column.type) or (name == "year" and not is_time):
        return _days_of_years(papers, name, column)
    if is_text(column.type) and pc.all(pc.match_substring_regex(as_text(column), YEAR)).as_py():
        return _days_of_years(papers, name, column)
    return _days_of_dates(papers, name, column)


def _days_of_years(papers: TableFile, name: str, column: Column) -> np.ndarray:
    if not is_text(column.type) and not is_number(column.type):
        raise wrong_type(papers, name, column, "whole numbers such as 1999")
    year_N = as_numbers(papers, name, column)
    is_bad = ~((year_N >= 1) & (year_N <= 9999) & (year_N == np.floor(year_N)))
    if is_bad.any():
        hint = "a whole number from 1 to 9999; leave it empty where it is not known"
        raise papers.bad_value(name, is_bad, column, "is not a year", hint=hint)
    first_of_january_N = (year_N.astype(np.int64) - 1970).astype("datetime64[Y]")
    return first_of_january_N.astype("datetime64[D]").astype(np.int32)


def _days_of_dates(papers: TableFile, name: str, column: Column) -> np.ndarray:
    kind = column.type
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    if not is_time and not is_text(kind):
        raise wrong_type(papers, name, column, "dates or text such as 1999-12-31")
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    if not is_time:
        column = pc.utf8_trim_whitespace(as_text(column))
    days = column if is_time else _parse_dates(papers, name, column)
    day_N = np.asarray(days.cast(pa.date32()).cast(pa.int32()))
    is_bad = (day_N < FIRST_DAY) | (day_N > LAST_DAY)
    if is_bad.any():
        text = column.cast(pa.string())
        raise papers.bad_value(name, is_bad, text, "is out of range", hint="years 1 to 9999")
    return day_N


def _parse_dates(papers: TableFile, name: str, text_N: Column) -> Column:
    text_N = pc.replace_substring_regex(text_N, BASIC_DATE, r"\1-\2-\3")
    is_bad = ~as_mask(pc.match_substring_regex(text_N, ISO_DATE))
    if not is_bad.any():
        day_N = pc.utf8_slice_codeunits(text_N, 0, 10)
        # 1999 becomes 1999-01, and 1999-01 becomes 1999-01-01.
        for short in (r"^(\d{4})$", r"^(\d{4}-\d{2})$"):
            day_N = pc.replace_substring_regex(day_N, short, r"\1-01")
        try:
            return _in_utc(text_N, day_N.cast(pa.date32()))
        except pa.ArrowInvalid:  # 30 February, which Arrow does not locate
            is_bad = np.array([not _is_date(text) for text in day_N.to_pylist()])
    raise papers.bad_value(
        name, is_bad, text_N, "is not a date", hint="ISO dates, such as 1999-12-31"
    )


def _in_utc(text_N: Column, day_N: Column) -> Column:
    """Take the day in UTC of the times with an offset, as Parquet has them; others keep theirs."""
    has_offset = pc.match_substring_regex(text_N, WITH_OFFSET)
    if not pc.any(has_offset).as_py():
        return day_N
    try:
        instants = pc.if_else(has_offset, text_N, None).cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # a clock time that is none
        return day_N
    return pc.coalesce(instants.cast(pa.date32()), day_N)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
