"""What the delay model learns from: each departure of the year, beside what was known the instant before.

The features are computed here once more, over history: the newest news of the route, of the airport and of its weather.
The demo learns from all of the year, also where it replays only its end: it is about serving, not about forecasts.
"""

import polars as pl

from scripts.flights.replay import Year

INPUTS = ("route_delay", "miles", "origin_delay", "wind_speed", "visibility")
"""As the model's definition names them, in its order."""

TARGET = "minutes"

_MOST_WIND = 250
"""Miles an hour: the topic's card refuses more."""


def examples(year: Year, most: int, seed: int) -> pl.DataFrame:
    """So many departures at most, in the order of time: the inputs, and the delay in minutes that followed."""
    news = year.flights.select(
        "origin",
        "dest",
        at=pl.coalesce("departed", "scheduled"),
        delay=pl.col("dep_delay").cast(pl.Float32),
        miles=pl.col("distance").cast(pl.Int32),
        flown=pl.col("departed").is_not_null(),
    ).sort("at")
    flown = news.filter("flown")
    chosen = flown.sample(min(most, flown.height), seed=seed).sort("at").rename({"delay": TARGET})
    of_route = news.select("origin", "dest", "at", route_delay=pl.col("delay").clip(-60, 600))
    of_origin = flown.select("origin", "at", origin_delay="delay")
    known = chosen.join_asof(
        of_route, on="at", by=["origin", "dest"], allow_exact_matches=False, check_sortedness=False
    )
    known = known.join_asof(of_origin, on="at", by="origin", allow_exact_matches=False, check_sortedness=False)
    known = known.join_asof(_observed(year), on="at", by="origin", check_sortedness=False)
    return known.select(*INPUTS, TARGET)


def _observed(year: Year) -> pl.DataFrame:
    usable = year.weather.filter(pl.col("wind_speed").fill_null(0) <= _MOST_WIND)
    return usable.select(
        "origin", "at", wind_speed=pl.col("wind_speed").cast(pl.Float32), visibility=pl.col("visib").cast(pl.Float32)
    ).sort("at")
