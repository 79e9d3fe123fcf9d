"""The four parts of a pipeline, and which of them are switched on."""

from __future__ import annotations

from dataclasses import dataclass

from penstock._settings_model import Resolved, setting


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(Resolved, section="pipeline", title="parts"):
    """Which of the four parts of a pipeline are on. An answer is the same without a part, and comes at another cost.

    Attributes:
        pool: keep connections to upstreams, and share them. Off, every request opens a connection and closes it.
        batch: answer requests that wait at the same time by one call of the model. Off, a call holds the rows of one
            request.
        stream: send the pieces of an answer as the model makes them. Off, they are collected and sent as a whole.
        load: load models in the background: at the start, before they are asked for, several at a time. Off, the first
            request for a model loads it, one model after another.
    """

    pool: bool = setting(True, "switch", "keep connections to upstreams, and share them")  # noqa: FBT003
    batch: bool = setting(True, "switch", "answer requests that wait together by one call")  # noqa: FBT003
    stream: bool = setting(True, "switch", "send the pieces of an answer as they are made")  # noqa: FBT003
    load: bool = setting(True, "switch", "load models before they are asked for, several at a time")  # noqa: FBT003
