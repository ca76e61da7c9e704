-- The events once more, from the files. Variables: flights, weather, airports, sent (paths), shift (minutes).
--
--   sent       what was sent, in order: topic, row of the event in its file, cut_short, and what ranks records of equal
--              event time: timestamp, partition, sequence (offsets of a partition follow it)
--   departure  every record of a departure that can be read, arrival and observation likewise

SET TimeZone = 'UTC';

CREATE TABLE sent AS FROM read_parquet(getvariable('sent'));

CREATE MACRO minutes(number) AS to_minutes(CAST(number AS BIGINT));

-- The first instant after `start` at which a clock in `zone` shows `clock`, a number such as 1345.
CREATE MACRO next_showing(clock, start, zone) AS start + minutes(
    (1440 + clock // 100 * 60 + clock % 100
     - extract(hour FROM start AT TIME ZONE zone) * 60 - extract(minute FROM start AT TIME ZONE zone)) % 1440);

CREATE TABLE flight AS
WITH file AS (
    SELECT row_number() OVER () - 1 AS row, *, CAST(time_hour AS TIMESTAMPTZ) + minutes(minute) AS scheduled
    FROM read_csv(getvariable('flights'), header = true, nullstr = 'NA', sample_size = -1)
), there AS (
    SELECT file.*, coalesce(tzone, 'America/Puerto_Rico') AS zone, scheduled + minutes(dep_delay) AS departed
    FROM file LEFT JOIN read_csv(getvariable('airports'), header = true, nullstr = 'NA') ON faa = dest
), planned AS (
    SELECT *, next_showing(sched_arr_time, scheduled, zone) AS to_arrive FROM there
)
SELECT *, CASE
    WHEN arr_delay IS NOT NULL THEN to_arrive + minutes(arr_delay)
    WHEN arr_time IS NOT NULL THEN next_showing(arr_time, departed, zone)
    ELSE to_arrive END AS arrived
FROM planned;

CREATE TABLE departure AS
SELECT sent.*, flight.* EXCLUDE (row), coalesce(departed, scheduled) + minutes(getvariable('shift')) AS event_time
FROM sent JOIN flight USING (row)
WHERE topic = 'flights.departures' AND NOT cut_short;

CREATE TABLE arrival AS
SELECT sent.*, flight.* EXCLUDE (row), arrived + minutes(getvariable('shift')) AS event_time
FROM sent JOIN flight USING (row)
WHERE topic = 'flights.arrivals' AND NOT cut_short;

-- A wind of a thousand miles an hour is no observation: the topic's card refuses it.
CREATE TABLE observation AS
SELECT sent.*, weather.* EXCLUDE (row), CAST(time_hour AS TIMESTAMPTZ) + minutes(getvariable('shift')) AS event_time
FROM sent JOIN (
    SELECT row_number() OVER () - 1 AS row, *
    FROM read_csv(getvariable('weather'), header = true, nullstr = 'NA', sample_size = -1)
) weather USING (row)
WHERE topic = 'weather.hourly' AND NOT cut_short AND coalesce(wind_speed, 0) <= 250;
