"""What must hold for a view beyond its types, and can only be tried: that its rows are local, and its nulls declared.

A batch is cut by chance: by arrival, by a restart, by another worker. So what a view makes of an event must not depend
on the events beside it. No property of an expression tells this (Polars calls `x - x.mean()` separable by rows), so
every view is tried on golden and made-up events: whole, one by one, in twos, in another order and many times over, and
what comes out must agree to the bit.
"""

import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl

from stillwell.counting import counted
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.samples import (
    empty_events,
    input_columns,
    nullable_columns,
    numbered,
    sample_events,
    sample_inputs,
    whole_events,
    whole_inputs,
    with_nulls,
)
from stillwell.evaluate import WHAT_CODE_RAISES, describe, evaluate, root_names, select, without
from stillwell.lists import column_of_elements, elements_of, with_null_elements
from stillwell.spec import ColumnSpec, FeatureSpec, OnDemandSpec, RequestSpec, ViewSpec, input_fields
from stillwell.transform import Transformation, Transformed
from stillwell.types import FLOAT32, FLOAT64, INT32, INT64, list_of, of_polars, vector_of
from stillwell.validate import Expectations

TILES = 32
"""How many times over the events are tried in one frame: each comes again, and there are enough of them for Polars to
leave its paths for short columns."""

_NO_NULLS = "no element of a list is null: fill it before it goes into the list, or leave it out"

_MOST_BYTES = 64 * 1024 * 1024
"""Of events that are tried in one frame: long vectors come fewer times."""

_LOCAL = (
    "a view sees one event at a time, so that no cut of a batch changes a row: "
    "take out what looks at others (mean, shift, cum_sum, rank, over, first, is_duplicated, head, filter, shuffle, …)"
)
_LAST_BIT = (
    "they differ in the last bits, since Polars divides otherwise where all events of a batch take the same constant: "
    "divide within .then(…), .otherwise(…) and coalesce(…), not their result"
)
_SLIP = re.compile(
    r": (AttributeError|NameError|UnboundLocalError): (?!'NoneType')"
    r"|missing required field|contains unknown field|, got `|: (ColumnNotFoundError|UnfitFrame): "
)
"""Errors of a function that no event excuses: a name that is not there, a row with other names or types than the view
declares. Values out of range may be the event's fault."""
_NULL_UNTHOUGHT_OF = re.compile(r"'NoneType'|got null")
_GOLDEN_FIX = "add a golden example that it can use, or mend it"
_PURE = "a @rows function sees its event alone: no memory of others, no clock, no chance"
_PURE_FRAME = (
    f"{_LOCAL}; nothing is kept from call to call either, and where numbers differ in the last bits alone, divide "
    "within .then(…) and .otherwise(…)"
)


def check_row_locality(view: ViewSpec, golden: pl.DataFrame, mistakes: Mistakes) -> None:
    """Note what a view computes from more than the event itself. golden: events as the decoder gives them, or none."""
    events = sample_events(view, golden)
    if view.function is None:
        _check_expressions(view, events, mistakes)
    else:
        _check_function(view, events, golden, mistakes)


def check_nulls(view: ViewSpec, golden: pl.DataFrame, mistakes: Mistakes) -> None:
    """Note keys and features that can be null, though declared that they cannot. golden: usable events, or none."""
    if view.function is None:
        _check_nulls_of_expressions(view, golden, mistakes)
    else:
        _check_nulls_of_function(view, golden, mistakes)


# Row-locality of expressions


def _check_expressions(view: ViewSpec, events: pl.DataFrame, mistakes: Mistakes) -> None:
    for label, expression in _expressions(view).items():
        if expression.meta.undo_aliases().meta.is_column():
            continue  # a column as it came is its own row's, and trying that costs 20 ms
        if problem := _dependence(_read_by(expression, events), expression):
            _note(label, problem, mistakes)


def _read_by(expression: pl.Expr, events: pl.DataFrame) -> pl.DataFrame:
    """The columns that an expression reads: it is tried a hundred times, and a topic may have hundreds of columns."""
    if expression.meta.has_multiple_outputs():  # by `pl.all()` and its like, which stand for any of them
        return events
    return events.select({*root_names(expression), "_offset"})


def _dependence(events: pl.DataFrame, expression: pl.Expr) -> str | None:
    """How an expression depends on more than its row; None where nothing of the kind shows."""
    columns = (expression.alias("computed"), "_offset")
    alone = [_tried(events[place : place + 1], columns) for place in range(events.height)]
    raised = {place: result for place, result in enumerate(alone) if isinstance(result, BaseException)}
    for place, error in raised.items():
        if isinstance(error, pl.exceptions.ShapeError):
            event = _shown(events[place : place + 1], root_names(expression))
            return f"gives none or several values for {event} ({describe(error)}); {_LOCAL}"
    if len(raised) == events.height:
        said = describe(raised[0])
        return f"fails for every event that was tried, {said}; {_GOLDEN_FIX}"
    expected = pl.concat(result for result in alone if isinstance(result, pl.DataFrame))
    usable = without(events, raised)
    for way, order in _arrangements(usable).items():
        together = _tried(usable[order], columns)
        if isinstance(together, BaseException):
            return f"fails on several events, though on none of them alone ({describe(together)}); {_LOCAL}"
        if problem := _difference(usable[order], expression, together, expected[order], way):
            return problem
    return _difference_in_other_company(usable, expression, expected)


def _difference_in_other_company(events: pl.DataFrame, expression: pl.Expr, expected: pl.DataFrame) -> str | None:
    """Where an event's result changes with the one that stands beside it. An event that is alone is computed beside
    itself, and there looks like one of many that are alike."""
    columns = (expression.alias("computed"), "_offset")
    for place in range(events.height):
        two = events[[place, (place + 1) % events.height]]
        together = _tried(two, columns)
        if isinstance(together, BaseException):
            return f"fails on two events, though on neither of them alone ({describe(together)}); {_LOCAL}"
        if problem := _difference(two, expression, together.head(1), expected[place : place + 1], "in twos"):
            return problem
    return None


def _difference(
    events: pl.DataFrame, expression: pl.Expr, together: pl.DataFrame, expected: pl.DataFrame, way: str
) -> str | None:
    """Where the results of the events together are not those of each alone."""
    places = _differing(together.get_column("computed"), expected.get_column("computed"))
    if not places:
        return None
    among, alone = (_at(frame.get_column("computed"), places[0]) for frame in (together, expected))
    event = _shown(events[places[0] : places[0] + 1], root_names(expression))
    return f"gives {_said(among)} {way} but {_said(alone)} alone, for {event}; {_mend(among, alone)}"


def _mend(among: object, alone: object) -> str:
    return _LAST_BIT if _is_rounded_otherwise(among, alone) else _LOCAL


def _is_rounded_otherwise(one: object, other: object) -> bool:
    """Whether two numbers differ as those do that are rounded at different steps; of a zero the sign is no rounding."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        differing = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]]
        return bool(differing) and all(_is_rounded_otherwise(*pair) for pair in differing)
    if not isinstance(one, float) or not isinstance(other, float):
        return False
    return one != other and math.isclose(one, other, rel_tol=1e-6)


def _tried(events: pl.DataFrame, columns: tuple[pl.Expr, str]) -> pl.DataFrame | BaseException:
    """What the events give, or why they give nothing."""
    try:
        return select(events, columns)
    except WHAT_CODE_RAISES as error:
        return error


def _arrangements(events: pl.DataFrame) -> Mapping[str, list[int]]:
    """Orders in which to try the events together. Chance betrays itself too: it would have to repeat itself thrice."""
    as_they_are = list(range(events.height))
    shuffled = random.Random(0).sample(as_they_are, events.height)
    tiles = min(TILES, max(2, _MOST_BYTES // max(1, int(events.estimated_size()))))
    return {
        "among others": as_they_are,
        "in another order": shuffled,
        "in a large batch": as_they_are * tiles,
    }


def _differing(one: pl.Series, other: pl.Series) -> list[int]:
    """Where two columns of one type differ in a bit: in being null, in a zero's sign, in a NaN's payload."""
    return _bits(one).ne_missing(_bits(other)).arg_true().to_list()


def _bits(values: pl.Series) -> pl.Series:
    kind = of_polars(values.dtype)
    if kind is not None and kind.element in (FLOAT32, FLOAT64):
        width = INT32 if kind.element is FLOAT32 else INT64
        flat, lengths = elements_of(values)
        there = [None if null else length for null, length in zip(values.is_null(), lengths.tolist(), strict=True)]
        bits = flat.reinterpret(dtype=width.polars)
        return column_of_elements(list_of(width) if kind.size is None else vector_of(width, kind.size), bits, there)
    if values.dtype == FLOAT32.polars:
        return values.reinterpret(dtype=pl.UInt32)
    if values.dtype == FLOAT64.polars:
        return values.reinterpret(dtype=pl.UInt64)
    return values


# Row-locality of functions


def _check_function(view: ViewSpec, events: pl.DataFrame, golden: pl.DataFrame, mistakes: Mistakes) -> None:
    transformation = Transformation(view, empty_events(view.source))
    alone = [transformation.run(events[place : place + 1]) for place in range(events.height)]
    rejects = [reject for result in alone for reject in result.rejects]
    if len(rejects) == events.height:
        fix = "mend it" if _SLIP.search(rejects[0].error) else _GOLDEN_FIX
        mistakes.add(f"fails for every event that was tried, {rejects[0].error}; {fix}")
        return
    problem = _other_rows(view, transformation, events, alone)
    problem = problem or _failure_without_excuse(view, transformation, events, golden)
    if problem:
        mistakes.add(problem)


def _other_rows(
    view: ViewSpec, transformation: Transformation, events: pl.DataFrame, alone: Sequence[Transformed]
) -> str | None:
    """An event for which a function gives other rows among others than alone."""
    expected = _outcomes(events, alone)
    for way, order in _orders(view, events, [not result.rejects for result in alone]):
        together = numbered(events[order])
        given = _outcomes(together, [transformation.run(together)])
        for place, origin in enumerate(order):
            if given[place] != expected[origin]:
                event = _shown(events[origin : origin + 1], events.columns[:-2])
                fix = _PURE if view.frame is None else _PURE_FRAME
                if refused := alone[origin].rejects:
                    return f"gives a row {way} but fails alone, {refused[0].error}, for {event}; {fix}"
                return f"gives other rows {way} than alone, for {event}; {fix}"
    return None


def _orders(view: ViewSpec, events: pl.DataFrame, usable: Sequence[bool]) -> Iterator[tuple[str, list[int]]]:
    """Orders in which to try a function on events together; one that sees frames, also on any two.

    usable: for each event whether it is no reject alone. Each for which a function of frames raises costs a dozen more
    calls of it in a batch of thousands, so that such ones stand beside one other alone.
    """
    good = [place for place, is_good in enumerate(usable) if is_good or view.frame is None]
    for way, order in _arrangements(events[good]).items():
        yield way, [good[place] for place in order]
    if view.frame is not None:
        yield from (("in twos", [place, good[(at + 1) % len(good)]]) for at, place in enumerate(good))
        bad = (place for place, is_good in enumerate(usable) if not is_good)
        yield from (("in twos", [place, good[at % len(good)]]) for at, place in enumerate(bad))


def _failure_without_excuse(
    view: ViewSpec, transformation: Transformation, events: pl.DataFrame, golden: pl.DataFrame
) -> str | None:
    """What would be dead letters, one after another, though the events are as they should be."""
    usable = Expectations(view.source, empty_events(view.source)).check(events).frame
    return (
        _failure(transformation, events, _SLIP)
        or _failure(transformation, usable, _NULL_UNTHOUGHT_OF)
        or _failure_by_a_column(view, transformation, whole_events(view, golden))
    )


def _failure(transformation: Transformation, events: pl.DataFrame, kind: re.Pattern[str]) -> str | None:
    """An event for which the function fails in such a way."""
    reject = next((each for each in transformation.run(events).rejects if kind.search(each.error)), None)
    if reject is None:
        return None
    event = events.filter(pl.col("_offset") == reject.offset)
    return f"fails for {_shown(event, event.columns[:-2])}: {reject.error}"


def _failure_by_a_column(view: ViewSpec, transformation: Transformation, whole: pl.DataFrame) -> str | None:
    """A column whose being null makes the function fail, where it did not before. Of events that break a rule the rest
    says nothing."""
    nullable = nullable_columns(view.source)
    failed = [reject.offset for reject in transformation.run(whole).rejects]
    good = numbered(whole.filter(~pl.col("_offset").is_in(failed)))
    for columns in (*([name] for name in nullable), nullable):
        for reject in transformation.run(with_nulls(good, columns)).rejects:
            if _NULL_UNTHOUGHT_OF.search(reject.error):
                return f"fails where {' and '.join(columns)} is null: {reject.error}"
    return None


def _outcomes(events: pl.DataFrame, results: Iterable[Transformed]) -> list[list[object]]:
    """For each event in order what came of it: its rows with floats as bits, or the reason why there are none."""
    places = {offset: place for place, offset in enumerate(events.get_column("_offset"))}
    outcomes: list[list[object]] = [[] for _ in places]
    for result in results:
        bits = pl.DataFrame([_bits(values) for values in result.frame])
        for row in bits.select(pl.exclude("_offset"), "_offset").iter_rows():
            outcomes[places[row[-1]]].append(row[:-1])
        for reject in result.rejects:
            outcomes[places[reject.offset]].append(reject.reason)
    return outcomes


# Nulls


def _check_nulls_of_expressions(view: ViewSpec, golden: pl.DataFrame, mistakes: Mistakes) -> None:
    whole = whole_events(view, golden)
    events = numbered(pl.concat([whole, golden]))
    usable = Expectations(view.source, empty_events(view.source)).check(events).frame
    computed = _computed(view, whole)
    for label in _never_null(view):
        problem = _null_without_cause(view, label, usable) or _null_by_a_column(view, label, whole, computed)
        if problem:
            _note(label, problem, mistakes)
    for feature in view.features:
        if feature.type.element is not None and (problem := _null_in_a_list(view, feature.name, usable, whole)):
            mistakes.add(problem, field=feature.name)


def _null_without_cause(view: ViewSpec, label: str, usable: pl.DataFrame) -> str | None:
    """An event that might come, and for which the output is null."""
    computed = _computed(view, usable)
    nulls = computed.filter(pl.col(label).is_null()).get_column("_offset")
    if nulls.is_empty():
        return None
    event = usable.filter(pl.col("_offset") == nulls[0])
    return f"is null for {_shown(event, root_names(_expressions(view)[label]))}; {_fix(view, label, None)}"


def _null_by_a_column(view: ViewSpec, label: str, whole: pl.DataFrame, computed: pl.DataFrame) -> str | None:
    """A column, or all that can be, whose being null makes the output null where it was not.

    By the difference alone, since some columns may hold values that break a rule for which no other value is known.
    """
    nullable = nullable_columns(view.source)
    had_value = computed.filter(pl.col(label).is_not_null()).get_column("_offset")
    for columns in (*([name] for name in nullable), nullable):
        without_value = _computed(view, with_nulls(whole, columns))
        nulls = without_value.filter(pl.col(label).is_null(), pl.col("_offset").is_in(had_value.implode()))
        if nulls.height:
            return f"is null where {' and '.join(columns)} is null; {_fix(view, label, columns[0])}"
    return None


def _null_in_a_list(view: ViewSpec, label: str, usable: pl.DataFrame, whole: pl.DataFrame) -> str | None:
    """An event that might come, and of which a list holds a null."""
    nullable = nullable_columns(view.source)
    computed = _computed(view, usable)
    for place in with_null_elements(computed.get_column(label))[:1]:
        event = usable.filter(pl.col("_offset") == computed.get_column("_offset")[place])
        return f"has a null in it for {_shown(event, root_names(_expressions(view)[label]))}; {_NO_NULLS}"
    for columns in (*([name] for name in nullable), nullable):
        if with_null_elements(_computed(view, with_nulls(whole, columns)).get_column(label)):
            return f"has a null in it where {' and '.join(columns)} is null; {_NO_NULLS}"
    return None


def _computed(view: ViewSpec, events: pl.DataFrame) -> pl.DataFrame:
    """Every output for the events that `where` lets through, with their offsets; without events that raise."""
    expressions = _expressions(view)
    kept, _ = evaluate(events, [*(each.alias(label) for label, each in expressions.items()), "_offset"])
    return kept if view.where is None else kept.filter(pl.col(_WHERE))


def _fix(view: ViewSpec, label: str, column: str | None) -> str:
    leave_out = f"where={column}.is_not_null()" if column else "where=…"
    feature = next((feature for feature in view.features if feature.name == label), None)
    if feature is None:
        return f"a key never is: leave such events out by {leave_out}"
    return f"add .fill_null(…), declare Feature[{feature.type.name} | None], or leave such events out by {leave_out}"


def _check_nulls_of_function(view: ViewSpec, golden: pl.DataFrame, mistakes: Mistakes) -> None:
    events = sample_events(view, golden)
    usable = Expectations(view.source, empty_events(view.source)).check(events).frame
    for reject in Transformation(view, empty_events(view.source)).run(usable).rejects:
        if reject.reason in ("null_key", "null_feature", "null_element"):
            event = usable.filter(pl.col("_offset") == reject.offset)
            mistakes.add(f"gives a null for {_shown(event, event.columns[:-2])}: {reject.error}")
            return


# On-demand views


def check_on_demand_locality(view: OnDemandSpec, mistakes: Mistakes) -> None:
    """Note what an on-demand view computes from more than its row."""
    rows = sample_inputs(view)
    for name, expression in _on_demand_expressions(view).items():
        if problem := _dependence(rows, expression):
            mistakes.add(problem.replace(_GOLDEN_FIX, "mend it"), field=name)


def check_on_demand_nulls(view: OnDemandSpec, mistakes: Mistakes) -> None:
    """Note features that can be null, though declared that they cannot: where an input is, or for a value."""
    whole = whole_inputs(view)
    columns = input_columns(view)
    for feature in view.features:
        if not feature.nullable and (problem := _on_demand_null(feature, view, whole, columns)):
            fix = f"add .fill_null(…), or declare Feature[{feature.type.name} | None]"
            mistakes.add(f"{problem}; {fix}", field=feature.name)
        if feature.type.element is not None and (problem := _on_demand_null_in_a_list(feature, view, whole, columns)):
            mistakes.add(problem, field=feature.name)


def _on_demand_null(
    feature: FeatureSpec, view: OnDemandSpec, whole: pl.DataFrame, columns: Mapping[str, ColumnSpec]
) -> str | None:
    expression = _on_demand_expressions(view)[feature.name]
    read = [name for name in dict.fromkeys(root_names(expression)) if columns[name].nullable]
    had_value = _values_of(whole, expression)
    for value, offset in had_value.iter_rows():
        if value is None:
            return f"is null for {_shown(whole.filter(pl.col('_offset') == offset), root_names(expression))}"
    stored = {name for each in view.inputs if not isinstance(each, RequestSpec) for name in input_fields(each)}
    of_inputs = ([name for name in read if name in input_fields(each)] for each in view.inputs)
    for nulls in (*([name] for name in read), *of_inputs, read):
        computed = _values_of(with_nulls(whole, nulls), expression)
        if computed.join(had_value, on="_offset").get_column("computed").null_count():
            why = ", as it is where there is no row or an old one" if stored & set(nulls) else ""
            return f"is null where {' and '.join(nulls)} is null{why}"
    return None


def _on_demand_null_in_a_list(
    feature: FeatureSpec, view: OnDemandSpec, whole: pl.DataFrame, columns: Mapping[str, ColumnSpec]
) -> str | None:
    """A row of inputs of which a list holds a null."""
    expression = _on_demand_expressions(view)[feature.name]
    read = [name for name in dict.fromkeys(root_names(expression)) if columns[name].nullable]
    computed = _values_of(whole, expression)
    for place in with_null_elements(computed.get_column("computed"))[:1]:
        row = whole.filter(pl.col("_offset") == computed.get_column("_offset")[place])
        return f"has a null in it for {_shown(row, root_names(expression))}; {_NO_NULLS}"
    for nulls in (*([name] for name in read), read):
        if with_null_elements(_values_of(with_nulls(whole, nulls), expression).get_column("computed")):
            return f"has a null in it where {' and '.join(nulls)} is null; {_NO_NULLS}"
    return None


def _values_of(rows: pl.DataFrame, expression: pl.Expr) -> pl.DataFrame:
    """What the rows give that do not raise, with their offsets."""
    return evaluate(rows, [expression.alias("computed"), "_offset"])[0]


def _on_demand_expressions(view: OnDemandSpec) -> dict[str, pl.Expr]:
    return {feature.name: feature.expression for feature in view.features if feature.expression is not None}


# A view's expressions by label: a feature's is its name; no name begins with _, so that the others cannot be taken


_WHERE = "_where"
_KEY = "_key "


def _expressions(view: ViewSpec) -> dict[str, pl.Expr]:
    where = {} if view.where is None else {_WHERE: view.where}
    keys = {f"{_KEY}{key.name}": each for key, each in zip(view.entity.keys, view.keys, strict=True)}
    features = {each.name: each.expression for each in view.features if each.expression is not None}
    return {**where, **keys, **features}


def _never_null(view: ViewSpec) -> Iterator[str]:
    yield from (f"{_KEY}{key.name}" for key in view.entity.keys)
    yield from (feature.name for feature in view.features if not feature.nullable)


def _note(label: str, problem: str, mistakes: Mistakes) -> None:
    if label.startswith("_"):
        mistakes.add(f"has a {label.removeprefix('_')} that {problem}")
    else:
        mistakes.add(problem, field=label)


def _shown(event: pl.DataFrame, columns: Sequence[str]) -> str:
    """One event as a reader would write it, with the columns that matter."""
    if not columns:
        return "any event"
    values = event.select(*dict.fromkeys(columns)).row(0, named=True)
    return ", ".join(f"{name}={_said(value)}" for name, value in values.items())


def _at(column: pl.Series, place: int) -> object:
    """One value of a column; a list as Python has it."""
    return column[place : place + 1].to_list()[0]


def _said(value: object) -> str:
    """A value as a reader would write it; of a long list its beginning."""
    if isinstance(value, list) and len(value) > _MOST_SAID:
        return f"[{', '.join(map(repr, value[:_MOST_SAID]))}, …] ({counted(len(value), 'element')})"
    return repr(value)


_MOST_SAID = 8
