"""What other programs print, read: a worker's metrics, a process's status, a contender's result. Pure."""

import json
from collections.abc import Mapping
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

Json = Mapping[str, Any]


def samples(metrics: str, name: str, by: str) -> dict[str, float]:
    """The samples of one name in Prometheus' text, summed by one of their labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == name:
                label = sample.labels.get(by, "")
                found[label] = found.get(label, 0.0) + sample.value
    return found


def total(metrics: str, name: str) -> float:
    """All samples of one name, summed; 0 where there are none."""
    return sum(samples(metrics, name, by="").values())


def status_mb(status: str, field: str) -> float:
    """A field of /proc/<pid>/status that is given in kB, such as VmHWM. Raises ValueError where it is missing."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise ValueError(f"a process's status without {field}: {status[:200]!r}")


def last_json(printed: str) -> Json:
    """The last line that is a JSON object. Raises ValueError, with the end of what was printed, where there is none."""
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            return cast("Json", json.loads(line))
    raise ValueError(f"no result was printed; the end of what was:\n{printed[-2000:]}")
