"""Text models on other servers: what `RemoteModel` hands over where its task is `"generate"` or `"embed"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock._cache_context import LoadContext
    from penstock._computed import Loaded
    from penstock.client import Client
    from penstock.models import TensorDeclaration
    from penstock.remote import RemoteModel


def tensors_of(
    name: str,
    task: str,
    inputs: Mapping[str, TensorDeclaration] | None,
    outputs: Mapping[str, TensorDeclaration] | None,
) -> tuple[Mapping[str, TensorDeclaration], Mapping[str, TensorDeclaration]]:
    """The inputs and outputs of a text model.

    Raises:
        ConfigError: where it was given some of its own.
    """
    if inputs is not None or outputs is not None:
        raise ConfigError(f"model '{name}': task='{task}' has neither inputs nor outputs of its own")
    if task == "generate":
        return {"text_input": ("string", ())}, {"text_output": ("string", ())}
    return {"text": ("string", ())}, {"embedding": ("float32", (-1,))}


def open_text(model: RemoteModel, ctx: LoadContext | None) -> Loaded:  # noqa: ARG001  comes with text
    """One load of a text model."""
    raise ConfigError(f"{model!r}: text models cannot be opened yet")


def listed(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """The text models that a server lists by OpenAI's API: names, and what `RemoteModel` is told of each."""
    del client
    return []
