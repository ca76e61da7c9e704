"""What the benchmark reads from other programs."""

import json

import pytest

from streams import metrics
from streams.metrics import Metrics, Stage
from tests.benchmarks.parsing import last_json, samples, status_mb, total


def page() -> str:
    values = Metrics()
    values.count(metrics.EVENTS, 3, "a")
    values.count(metrics.EVENTS, 4, "b")
    values.observe(metrics.STAGE, 0.25, Stage.PREPARE)
    values.observe(metrics.STAGE, 0.5, Stage.PREPARE)
    values.observe(metrics.STAGE, 2.0, Stage.LINK)
    return values.text().decode()


def test_samples_of_a_workers_own_page_are_found_by_label() -> None:
    assert samples(page(), "stillwell_events_total", by="topic") == {"a": 3, "b": 4}
    assert samples(page(), "stillwell_stage_seconds_sum", by="stage") == {"prepare": 0.75, "link": 2}


def test_a_total_is_over_all_labels_and_of_exactly_that_name() -> None:
    assert total(page(), "stillwell_events_total") == 7
    assert total(page(), "stillwell_stage_seconds_count") == 3
    assert total("", "stillwell_events_total") == 0


def test_memory_is_read_from_the_field_that_is_named_in_megabytes_of_1024() -> None:
    status = "Name:\tpython\nVmPeak:\t  999999 kB\nVmHWM:\t  524288 kB\nVmRSS:\t    1024 kB\n"
    assert status_mb(status, "VmHWM") == 512


def test_the_status_of_a_process_that_has_ended_holds_no_memory() -> None:
    with pytest.raises(ValueError, match="VmHWM"):
        status_mb("Name:\tpython\nState:\tZ (zombie)\n", "VmHWM")


def test_a_result_is_the_last_object_whatever_is_printed_round_it() -> None:
    printed = "\n".join(["starting", json.dumps({"events": 1}), json.dumps({"events": 2}), "bye {", ""])
    assert last_json(printed) == {"events": 2}


def test_a_contender_without_a_result_is_shown_with_what_it_printed() -> None:
    with pytest.raises(ValueError, match="NoBrokersAvailable"):
        last_json("Traceback …\nNoBrokersAvailable")
