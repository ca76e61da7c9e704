"""The embedded stack: real Kafka, real Redis and a folder for the object store, on a machine that has Python alone."""

from stillwell.local.detached import DetachedStack, PartStatus
from stillwell.local.jars import KAFKA_VERSION, Progress
from stillwell.local.kafka_broker import KafkaBroker
from stillwell.local.part import Part
from stillwell.local.process import Process, free_port
from stillwell.local.redis_server import RedisServer
from stillwell.local.stack import LocalStack

__all__ = [
    "KAFKA_VERSION",
    "DetachedStack",
    "KafkaBroker",
    "LocalStack",
    "Part",
    "PartStatus",
    "Process",
    "Progress",
    "RedisServer",
    "free_port",
]
