SELECT
    tailnum AS tail,
    event_time,
    CASE WHEN arr_delay IS NOT NULL THEN dest END AS airport,
    CAST(arr_delay AS FLOAT) AS delay,
    arr_delay IS NULL AS diverted,
    timestamp, partition, sequence
FROM arrival
WHERE tailnum IS NOT NULL
