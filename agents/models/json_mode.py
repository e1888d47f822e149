"""The mode in which an endpoint is asked for JSON, and simpler modes for endpoints without it."""

from __future__ import annotations

from typing import Any

from agents.models.config import EndpointConfig, JsonMode
from agents.models.request import adapt_to_llguidance

_SIMPLER: dict[JsonMode, JsonMode] = {"json_schema": "json_object", "json_object": "text"}


class JsonModeSelector:
    """The JSON mode of one model at one endpoint: learned once, then used by all calls.

    Args:
        first: The mode that is tried first.
        fallback: Whether simpler modes may be tried.
    """

    def __init__(self, first: JsonMode, fallback: bool) -> None:
        self.current: JsonMode = first
        """The mode to use."""
        self._fallback = fallback
        self._confirmed: set[JsonMode] = set()

    def confirm(self, mode: JsonMode) -> None:
        """Records that a request in this mode was accepted."""
        self._confirmed.add(mode)

    def step_down(self, failed: JsonMode) -> bool:
        """Selects a simpler mode, unless another call has done so in the meantime.

        Args:
            failed: The mode that the endpoint has just rejected.

        Returns:
            Whether there is another mode to try.
        """
        if failed != self.current:
            return True
        if failed in self._confirmed:
            return False  # the mode is supported, so the endpoint objects to this one request
        simpler = _SIMPLER.get(failed) if self._fallback else None
        if simpler is None:
            return False
        self.current = simpler
        return True


_SELECTORS: dict[tuple[str, str, JsonMode, bool], JsonModeSelector] = {}


def json_mode_selector(config: EndpointConfig) -> JsonModeSelector:
    """The selector that all clients of this model in this process share."""
    key = (config.base_url, config.model, config.json_as, config.json_fallback)
    if key not in _SELECTORS:
        _SELECTORS[key] = JsonModeSelector(config.json_as, config.json_fallback)
    return _SELECTORS[key]


def reset_json_modes() -> None:
    """Forgets what was learned, as when another server now listens at the same address."""
    _SELECTORS.clear()


def apply_json_mode(body: dict[str, Any], mode: JsonMode) -> dict[str, Any]:
    """The body of a request, changed to ask for its JSON in a mode."""
    requested = (body.get("response_format") or {}).get("type")
    if requested is None or mode == "json_schema" or (requested, mode) == ("json_object",) * 2:
        return body
    body = dict(body)
    if mode == "llguidance":
        adapt_to_llguidance(body)
    elif mode == "json_object":
        body["response_format"] = {"type": "json_object"}
    else:
        del body["response_format"]
    return body
