SELECT
    origin AS airport,
    event_time,
    CAST(temp AS FLOAT) AS temperature,
    CAST(wind_speed AS FLOAT) AS wind_speed,
    CAST(wind_dir AS INTEGER) AS wind_direction,
    coalesce(CAST(wind_gust AS FLOAT) > 30, false) AS gusty,
    CAST(visib AS FLOAT) AS visibility,
    coalesce(temp <= 32 AND precip > 0, false) AS icing,
    CAST(temp AS FLOAT) - CAST(dewp AS FLOAT) AS spread,
    timestamp, partition, sequence
FROM observation
