SELECT
    origin,
    dest,
    event_time,
    departed IS NULL AS cancelled,
    CASE WHEN dep_delay IS NOT NULL THEN CAST(least(greatest(dep_delay, -60), 600) AS FLOAT) END AS delay,
    distance AS miles,
    timestamp, partition, sequence
FROM departure
