"""Expressions over a batch, with every row's fate its own.

Polars raises for the whole of a frame where one row fails. Transformations are row-local, so cutting the frame in
halves until the bad rows stand alone changes nothing for the others.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence

import polars as pl

from stillwell.errors import DefinitionError

WHAT_CODE_RAISES = (Exception, pl.exceptions.PanicException)
"""What to catch about code of a user's that works on frames: a panic of Polars' is no Exception."""

_FEW = 1_000
"""Rows up to which expressions are computed one after another: to hand them out to threads takes longer, 20 µs."""

_NESTED: frozenset[type[pl.DataType]] = frozenset({pl.List, pl.Array})
_TEXTS: frozenset[type[pl.DataType]] = frozenset({pl.String, pl.Binary})
"""What lists are made of, as numbers behind each other."""

_OF_LISTS = re.compile(r"\.(?:list|arr)\.")
"""What computes something of lists, as Polars writes it."""

_BY_ELEMENT = re.compile(r"\.(?:list|arr)\.(?:eval|agg)\(")
"""What computes expressions over the elements of all lists, as Polars writes it."""

_ELEMENT = ""
"""How Polars names the column that an element of a list is to the expression in `.list.filter(…)`."""

_ERROR_LENGTH = 300
"""Characters of an error that go into a reject."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A row that raised: its position in the frame, and the error."""

    position: int
    error: str


def select(frame: pl.DataFrame, expressions: Sequence[pl.Expr | str]) -> pl.DataFrame:
    """`frame.select(expressions)` of row-local expressions, with the same bits however many rows the frame has.

    Polars takes a column of one row for a constant, and divides a constant by another; of other columns it multiplies
    each value by the constant's reciprocal. For one value in eight (/ 100) or two (/ 3.6) that differs in the last bit.
    So a row that is alone is computed as one of two. It does the same with each chunk of a column that was put together
    from several, so that columns are made whole first.

    Of lists and vectors it adds up the elements in another order where one of the column is null, from 128 elements on.
    So a row whose lists are null, and the texts that lists may be made of, stands below the others: they are always
    added up in that one.

    To `.list.eval(…)` the elements of all lists are one column, and to `.list.agg(…)` what it makes of each: where the
    other lists of a batch are empty, or come to nothing before, one element may be left alone. So each row is computed
    twice.
    """
    if not frame.height:
        return frame.select(expressions)
    said = "\n".join(str(each) for each in expressions if isinstance(each, pl.Expr))
    of_lists = _NESTED | _TEXTS if _OF_LISTS.search(said) else _NESTED
    if frame.height > 1 and _BY_ELEMENT.search(said):
        return _computed(twice(frame), expressions, of_lists).head(frame.height)
    return _computed(frame, expressions, of_lists)


def _computed(
    frame: pl.DataFrame, expressions: Sequence[pl.Expr | str], of_lists: Collection[type[pl.DataType]]
) -> pl.DataFrame:
    """The same where no element of a list is left alone. of_lists: the types of columns that may be or become lists."""
    if any(type(each) in of_lists for each in frame.dtypes):
        return _beside_null(frame, expressions, of_lists)
    if frame.height != 1:
        whole = frame.rechunk()
        return whole.select(expressions) if frame.height > _FEW else whole.select_seq(expressions)
    try:
        return twice(frame).select_seq(expressions).head(1)
    except WHAT_CODE_RAISES:
        frame.select_seq(expressions)  # raises the same, and says it of one row
        raise


def twice(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame's rows, and behind them the same again."""
    # As series: of the frame, or by its rows, one that is alone would be the same constant twice.
    return pl.DataFrame([pl.concat([column, column], rechunk=True) for column in frame.get_columns()])


def _beside_null(
    frame: pl.DataFrame, expressions: Sequence[pl.Expr | str], of_lists: Collection[type[pl.DataType]]
) -> pl.DataFrame:
    """The same with a row more for the time of it, in which the columns of these types are null."""
    columns = []
    for column in frame.get_columns():
        last = column.clear(1) if type(column.dtype) in of_lists else column.head(1)
        columns.append(pl.concat([column, column, last] if frame.height == 1 else [column, last], rechunk=True))
    whole = pl.DataFrame(columns)
    try:
        computed = whole.select(expressions) if frame.height > _FEW else whole.select_seq(expressions)
    except MemoryError:
        raise
    except WHAT_CODE_RAISES as error:
        if frame.height != 1:
            raise
        frame.select_seq(expressions)  # as above
        said = f"it fails where a list, or its text, is null, and lists are computed beside such: {describe(error)}"
        raise ValueError(said) from error
    return computed.head(frame.height)


def evaluate(frame: pl.DataFrame, expressions: Sequence[pl.Expr | str]) -> tuple[pl.DataFrame, tuple[Failure, ...]]:
    """`select(frame, expressions)`, without the rows whose evaluation raises.

    One of the expressions must be a column of the frame, or constants would not be repeated for each row. Costs one
    select if nothing raises, and about 2 log2(rows) more for each row that does: a batch in which one row in a hundred
    raises takes ten times as long, and one in which all do takes two selects a row, some 200 µs.
    """
    pieces, failures = apart(frame, lambda part: select(part, expressions))
    if not pieces:
        schema = frame.lazy().select(expressions).collect_schema()
        return pl.DataFrame(schema=schema), failures
    return pieces[0] if len(pieces) == 1 else pl.concat(pieces), failures


def apart(
    frame: pl.DataFrame, work: Callable[[pl.DataFrame], pl.DataFrame]
) -> tuple[list[pl.DataFrame], tuple[Failure, ...]]:
    """What row-local work gives for a frame, in pieces, behind each other, without the rows over which it raises."""
    pieces: list[pl.DataFrame] = []
    failures: list[Failure] = []
    _apart(frame, 0, work, pieces, failures)
    return pieces, tuple(failures)


def _apart(
    frame: pl.DataFrame,
    start: int,
    work: Callable[[pl.DataFrame], pl.DataFrame],
    pieces: list[pl.DataFrame],
    failures: list[Failure],
) -> None:
    """Add what the frame gives, whose first row has the position `start`, to pieces and failures."""
    try:
        pieces.append(work(frame))
    except MemoryError:
        raise
    except WHAT_CODE_RAISES as error:
        if frame.height > 1:
            middle = frame.height // 2
            _apart(frame.head(middle), start, work, pieces, failures)
            _apart(frame.slice(middle), start + middle, work, pieces, failures)
        elif frame.height == 1:
            failures.append(Failure(start, describe(error)))


def root_names(expression: pl.Expr) -> list[str]:
    """The columns of a frame that an expression reads, by name, each as often as it stands there."""
    return [name for name in expression.meta.root_names() if name != _ELEMENT]


def without(frame: pl.DataFrame, positions: Collection[int]) -> pl.DataFrame:
    """The frame without the rows at these positions."""
    if not positions:
        return frame
    return frame.filter(pl.Series([position not in positions for position in range(frame.height)], dtype=pl.Boolean()))


def result_type(empty: pl.DataFrame, expression: pl.Expr, subject: str) -> pl.DataType:
    """The type that an expression has over such a frame. Raises DefinitionError where Polars finds that it has none.

    It is evaluated as well, since Polars plans many an operation on a type that lacks it, and refuses only to run it.
    """
    try:
        types = empty.lazy().select(expression).collect_schema().dtypes()
        _try_on(empty, expression)
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(f"{subject} is not an expression over {empty.columns}: {describe(error)}") from error
    if len(types) != 1:
        raise DefinitionError(f"{subject} must be an expression of one result, got {len(types)}; name each column")
    return types[0]


def _try_on(empty: pl.DataFrame, expression: pl.Expr) -> None:
    """Raise what Polars has against the expression. That a user's function fails without rows says nothing of it."""
    try:
        empty.select(expression)
    except pl.exceptions.PolarsError:
        raise
    except Exception:
        return


def describe(error: BaseException) -> str:
    """An error as part of a sentence: its kind and the first line of what it says, as text that can be written."""
    lines = str(error).encode(errors="backslashreplace").decode().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_ERROR_LENGTH]
