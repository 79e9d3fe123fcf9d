"""What two looks at the metrics say together, whatever happened between them."""

from __future__ import annotations

import math

import pytest

from penstock._metrics_text import Between, parse, quantile

BEFORE = """\
# HELP penstock_requests Requests by how they ended.
# TYPE penstock_requests counter
penstock_requests_total{model="a",outcome="ok",worker="0"} 10
penstock_requests_total{model="a",outcome="ok",worker="1"} 100
# TYPE penstock_queue_depth gauge
penstock_queue_depth{model="a"} 1
# EOF
"""
AFTER = """\
# TYPE penstock_requests counter
penstock_requests_total{model="a",outcome="ok",worker="0"} 30
penstock_requests_total{model="a",outcome="ok",worker="1"} 4
penstock_requests_total{model="b",outcome="failed",worker="0"} 6
# TYPE penstock_queue_depth gauge
penstock_queue_depth{model="a"} 7
penstock_queue_depth{model="b"} NaN
# TYPE penstock_batch_size histogram
penstock_batch_size_sum{model="a"} 8
penstock_batch_size_count{model="a"} 4
penstock_batch_size_bucket{le="1.0",model="a"} 2
penstock_batch_size_bucket{le="4.0",model="a"} 4 # {trace_id="abc"} 3.0
penstock_batch_size_bucket{le="+Inf",model="a"} 4
# EOF
"""


@pytest.fixture
def between() -> Between:
    return Between(parse(BEFORE), parse(AFTER), 2.0)


def test_counters_rise_also_where_one_began_anew_or_is_new(between: Between) -> None:
    assert between.rise("penstock_requests_total", outcome="ok") == 24  # 20 of the one, 4 of the one that began anew
    assert between.rate("penstock_requests_total") == 15
    assert between.rise("penstock_requests_total", model="b") == 6
    assert between.rise("penstock_requests_total", outcome=lambda outcome: outcome != "ok") == 6
    assert between.rise("nothing") == 0


def test_gauges_are_what_was_said_last(between: Between) -> None:
    assert between.gauge("penstock_queue_depth") == 7
    assert between.gauge("penstock_queue_depth", model="b") is None
    assert between.gauge("penstock_queue_depth", max) == 7
    assert not between.has("penstock_stream_open")
    assert between.values_of("penstock_requests_total", "worker") == ["0", "1"]


def test_histograms_have_means_and_percentiles(between: Between) -> None:
    assert between.mean("penstock_batch_size") == 2
    assert between.mean("penstock_batch_size", model="b") is None
    assert between.quantile(0.5, "penstock_batch_size") == 1
    assert between.quantile(0.75, "penstock_batch_size", model="a") == 2.5
    assert between.quantile(0.5, "penstock_batch_size", model="b") is None


def test_a_percentile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.99, [(1.0, 1.0), (2.0, 1.0), (math.inf, 5.0)]) == 2
    assert quantile(0.99, []) is None
    assert quantile(0.5, [(1.0, 0.0), (math.inf, 0.0)]) is None


def test_labels_may_hold_anything() -> None:
    samples = parse('a{model="say \\"} 1\\" \\\\ \\n",x=""} 2.5\n# EOF\n')
    assert samples == {"a": {(("model", 'say "} 1" \\ \n'), ("x", "")): 2.5}}


@pytest.mark.parametrize(
    "text",
    ["", "a 1\n", "a 1\n# EOF more\n", "a\n# EOF\n", 'a{b="c} 1\n# EOF\n', "a one\n# EOF\n", "<html></html>\n# EOF\n"],
)
def test_what_is_no_text_of_metrics_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no sample|# EOF|convert"):
        parse(text)
