"""Chaos: workers are killed and frozen, and their services cut off, at random; then everything is proved.

plan      what happens and when: pure, from a seed
feed      the events that flow meanwhile, good, late, repeated, bad and aborted
arena     the real parts: Kafka, Redis and object store behind proxies, and two workers
rounds    carries the plan out
witness   meanwhile looks at every link: what it stands for must be there before it
verdict   what is left must be what was sent
"""
