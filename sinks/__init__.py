"""Rest: a batch becomes durable, or says why not."""
