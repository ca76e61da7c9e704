"""The shapes at rest, shared by those who write and those who read: Redis keys and values, Parquet files, the chain."""
