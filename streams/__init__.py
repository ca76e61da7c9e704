"""Movement: bytes in from Kafka, rows out to the sinks, acknowledged last."""
