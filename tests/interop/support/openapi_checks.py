"""What schemathesis is to look for besides its own: it loads this module."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import schemathesis

# Those of every HTTP answer.
OF_HTTP = {"content-length", "content-type", "date", "connection", "transfer-encoding"}


@schemathesis.check
def headers_are_described(ctx: Any, response: Any, case: Any) -> None:
    """A description names every header of an answer."""
    responses = case.operation.definition.raw["responses"]
    described = responses.get(str(response.status_code))
    if described is None:
        return  # another check says so
    components = case.operation.schema.raw_schema["components"]["responses"]
    if "$ref" in described:
        described = components[described["$ref"].rsplit("/", 1)[1]]
    named = {name.lower() for name in described.get("headers", ())}
    assert set(response.headers) <= named | OF_HTTP, f"not described: {set(response.headers) - named - OF_HTTP}"


# Rules between several fields, which a description has no words for; and how a refusal names them.
BETWEEN_FIELDS = re.compile(
    "max_completion_tokens=|n=|stream_options is for a stream|dimensions=|.*is given twice: once in parameters"
    # JSON Schema takes 2.0 for an integer; readers of JSON with types do not.
    r"|.* must be a whole number.*, not -?\d[\d.e+]*$|.*invalid type: floating point"
)


@schemathesis.check
def what_fits_is_accepted(ctx: Any, response: Any, case: Any) -> None:
    """Where the description says which tensors a model takes, a request that fits it is not refused."""
    if not os.environ.get("NARROWED") or response.status_code != 400 or not case.meta.generation.mode.is_positive:
        return
    said = json.loads(response.content)["error"]
    why = said["message"] if isinstance(said, dict) else said
    assert BETWEEN_FIELDS.match(why), f"refused, and yet it fits: {why}"


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """HTTP passes over headers and parameters of a query that it does not know: they are no mistake (RFC 9110, 5.1)."""
    unknown = "x-schemathesis-unknown-property"
    given = [*(case.headers or ()), *(case.query or ())]
    return not any(unknown in str(name).lower() for name in given)
