"""The soak: a steady, mixed load for as long as one likes, while Redis is slow, cut off and half open now and then.

Every answer is checked, and what the processes hold is watched: nothing may grow.

    truth     what every answer has to be: pure, from the number of an entity
    parts     the real ones: Kafka, Redis behind a proxy, a query service of two processes, a worker
    within    told from inside each process: objects and tasks; the definitions start it
    load      who asks what, steadily
    cuts      what becomes of the way to Redis, and when
    watch     looks at the processes once a second
    machine   how long processes were kept from the processor
    trend     whether a series grows: pure
    verdict   what was found, judged
"""
