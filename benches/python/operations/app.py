"""The network that is measured, with OpenTelemetry set up as an app does it where `PENSTOCK_BENCH_TRACED` says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# `penstock serve FILE` puts the file's folder on the path, the examples lie beside `benches`.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from examples.mlp import mlp

if os.environ.get("PENSTOCK_BENCH_TRACED"):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        """Takes spans and sends them nowhere: what a collector's protocol costs is the exporter's matter."""

        def export(self, spans):  # noqa: ARG002  as an exporter is called
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)

models = [mlp]
