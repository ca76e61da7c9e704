"""The worker, put together: settings in, a Faust app out. The only place that knows the real sinks.

Start, each step with its reason, and stop in reverse:

    web        first, so that a probe is answered from the start (not ready)
    agents     before the consumer, or the first batches would have no subscriber
    Redis, object store, Kafka facts, dead-letter producer     what opening a partition needs
    consumer   last in, first out: it flushes what is in hand while all the others still work
"""

import asyncio
import concurrent.futures
import datetime
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp.web
import faust
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.app.base import BootStrategy

_T = TypeVar("_T")
