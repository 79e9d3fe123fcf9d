"""What a server counted, read from the text of its metrics."""

from __future__ import annotations

import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def scraped(url: str) -> dict[str, float]:
    """Each sample of `/metrics`, by its name and labels: `penstock_requests_total{model=m,outcome=ok}`."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return samples(answer.read().decode())


def samples(text: str) -> dict[str, float]:
    """The same of a text."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def grown(before: dict[str, float], after: dict[str, float], name: str, *labels: str) -> float:
    """By how much all samples of a name, with those labels among theirs, have grown."""
    of_name = [key for key in after if key.partition("{")[0] == name and all(label in key for label in labels)]
    assert of_name, f"{name} is not among the metrics"
    return sum(after[key] - before.get(key, 0.0) for key in of_name)
