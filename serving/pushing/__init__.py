"""Pushing rows over HTTP: into Kafka and, where asked for, into Redis before it is answered; and reading them back.

A pushed row goes this way, in the order of these files:

    bodies.py     a request's body, of either interface, becomes a `Push`
    batch.py      what gathers at one moment is transformed as one; pure
    pusher.py     … appended to Kafka as one, and written to Redis as one, each with the place that Kafka gave it
    topics.py     which incarnation of a push topic is in force
    repeated.py   a push that comes again under its idempotency key, answered as it was
    pages.py      the paths, and what they answer
"""
