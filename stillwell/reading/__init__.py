"""Reading back: from the names of features and the keys of entities to values, and what each is worth.

Whoever reads does it by the same plan: the query service, the worker's refresh of predictions, the client that reads
straight from the store. Pure, but for the store behind the port in `stillwell.reading.online`.
"""
