"""Weather: one observation an hour and airport."""

from datetime import timedelta

import polars as pl

from schemas.entities import Airport
from stillwell import Bool, Col, Feature, Float32, Int32, String, Timestamp, Topic, View, col, feature


class Weather(Topic, name="weather.hourly", event_time="time", start="earliest"):
    """The weather at an airport, observed at the full hour.

    Written by: the weather stations, once an hour; gaps of some hours happen.
    Read by: the delay model's features.
    Key: the airport, as `JFK`; the value does not repeat it.
    Retention: 30 days.

        {"time": 1357020000,
         "air": {"temperature": 39.02, "dew_point": 26.06, "humidity": 59.37, "pressure": 1012.0},
         "wind": {"direction": 270, "speed": 10.36, "gust": null},
         "precipitation": 0.0, "visibility": 10.0}

    Fields:
    - airport: the airport, from the record's key
    - time: when it was observed, in seconds since the epoch
    - temperature, dew_point: °F; null where an instrument failed
    - humidity: per cent; null where an instrument failed
    - pressure: at sea level, millibar; null where an instrument failed
    - wind_direction: degrees from north; null in calm or changing wind
    - wind_speed, wind_gust: miles an hour; gusts are null where there are none
    - precipitation: inches in the last hour
    - visibility: miles; instruments see 10 at most
    """

    airport: Col[String] = col(key=True, regex="[A-Z]{3}")
    time: Col[Timestamp] = col(unit="s")
    temperature: Col[Float32 | None] = col(path="air.temperature", ge=-80, le=140)
    dew_point: Col[Float32 | None] = col(path="air.dew_point", ge=-120, le=120)
    humidity: Col[Float32 | None] = col(path="air.humidity", ge=0, le=100)
    pressure: Col[Float32 | None] = col(path="air.pressure", ge=850, le=1100)
    wind_direction: Col[Int32 | None] = col(path="wind.direction", ge=0, le=360)
    wind_speed: Col[Float32 | None] = col(path="wind.speed", ge=0, le=250)
    wind_gust: Col[Float32 | None] = col(path="wind.gust", ge=0, le=300)
    precipitation: Col[Float32] = col(ge=0, le=20)
    visibility: Col[Float32] = col(ge=0)


class AirportWeather(
    View,
    source=Weather,
    entity=Airport,
    keys={"airport": Weather.airport},
    ttl=timedelta(days=400),
    freshness=timedelta(hours=2),
):
    """The latest weather at an airport: observed once an hour, and late where an observation is missing."""

    temperature: Feature[Float32 | None] = feature(Weather.temperature, description="°F")
    wind_speed: Feature[Float32 | None] = feature(Weather.wind_speed, description="miles an hour")
    wind_direction: Feature[Int32 | None] = feature(Weather.wind_direction, description="degrees from north")
    gusty: Feature[Bool] = feature((Weather.wind_gust > 30).fill_null(False), description="gusts over 30 mph")
    visibility: Feature[Float32] = feature(Weather.visibility, description="miles")
    icing: Feature[Bool] = feature(
        ((Weather.temperature <= 32) & (Weather.precipitation > 0)).fill_null(False),
        description="rain or snow at or below the freezing point",
    )
    spread: Feature[Float32 | None] = feature(
        (Weather.temperature - Weather.dew_point).cast(pl.Float32), description="°F; near zero there is fog"
    )
