"""AutoGen model components: loading a client by its config, without running foreign code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autogen_core.models import ChatCompletionClient

from policies import InputError

ALLOWED_PROVIDERS = ("autogen_ext.models",)
"""Module prefixes of the classes that a component may name. Loading a class can run any code."""

_SHORT_NAMES = {
    "azure_openai_chat_completion_client": "autogen_ext.models.openai",
    "AzureOpenAIChatCompletionClient": "autogen_ext.models.openai",
    "openai_chat_completion_client": "autogen_ext.models.openai",
    "OpenAIChatCompletionClient": "autogen_ext.models.openai",
    "OllamaChatCompletionClient": "autogen_ext.models.ollama",
}
"""Classes that AutoGen lets a config name without their module, and that module."""


def load_component(component: Mapping[str, Any], allowed: Sequence[str]) -> ChatCompletionClient:
    """The model client that a component config describes.

    Args:
        component: As the client's `dump_component` gives it.
        allowed: Module prefixes that its classes, nested ones included, may come from.

    Raises:
        InputError: It names a class from elsewhere, or cannot be loaded.
    """
    if not isinstance(component.get("provider"), str):
        raise InputError(
            "A model component names no provider.",
            "Write it as the client's dump_component() gives it: provider and config.",
        )
    for provider in _providers(component):
        module = _SHORT_NAMES.get(provider, provider)
        if not any(module == prefix or module.startswith(f"{prefix}.") for prefix in allowed):
            raise InputError(
                f"The model component '{provider}' is not one of AutoGen's model clients.",
                "Loading it would run its code; if you trust it, allow it with "
                f"--allow-provider {provider.rpartition('.')[0] or provider}.",
            )
    failure = ""
    try:
        client = ChatCompletionClient.load_component(dict(component))
    except Exception as error:  # noqa: BLE001 - whatever the component's own code raises
        failure = type(error).__name__
    else:
        if isinstance(client, ChatCompletionClient):
            return client
        failure = f"it is a {type(client).__name__}"
    # Outside the except block: the error may hold the config, and with it a key.
    raise InputError(
        f"The model component '{component['provider']}' cannot be loaded ({failure}).",
        "Check its provider and config, and that the package it needs is installed.",
    )


def _providers(node: Any) -> Iterator[str]:
    """Every class that a component config names, those of nested components included."""
    if isinstance(node, Mapping):
        if isinstance(node.get("provider"), str):
            yield node["provider"]
        for value in node.values():
            yield from _providers(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _providers(item)
