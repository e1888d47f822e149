"""In which form an endpoint is asked for JSON, and what is plainer where it does not know that."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from agents.models.wire import adapt_to_llguidance

JsonForm: TypeAlias = Literal["json_schema", "json_object", "text", "llguidance"]
_PLAINER: dict[JsonForm, JsonForm] = {"json_schema": "json_object", "json_object": "text"}


class Asked(Protocol):
    """Of an endpoint's configuration, what is asked how."""

    @property
    def base_url(self) -> str:
        """Where it is."""

    @property
    def model(self) -> str:
        """Which model."""

    @property
    def json_as(self) -> JsonForm:
        """In which form it is asked first."""

    @property
    def json_fallback(self) -> bool:
        """Whether it may be asked in a plainer one."""


class Forms:
    """The form for one model at one endpoint; found out once, and used by all calls from then on.

    Args:
        first: The form that is tried first.
        may_fall: Whether a plainer one may follow.
    """

    def __init__(self, first: JsonForm, may_fall: bool) -> None:
        self.now: JsonForm = first
        """The form to ask in."""
        self._may_fall = may_fall
        self._proven: set[JsonForm] = set()

    def prove(self, form: JsonForm) -> None:
        """A request in this form was answered."""
        self._proven.add(form)

    def step_down(self, failed: JsonForm) -> bool:
        """Goes to a plainer form, unless another call has done so since this one was asked.

        Returns:
            Whether there is another form to try.
        """
        if failed != self.now:
            return True
        if failed in self._proven:
            return False  # it is known there; what was said is about this one request
        plainer = _PLAINER.get(failed) if self._may_fall else None
        if plainer is None:
            return False
        self.now = plainer
        return True


_FORMS: dict[tuple[str, str, JsonForm, bool], Forms] = {}


def form_of(config: Asked) -> Forms:
    """The form in which a model is asked, as far as that is known in this process."""
    key = (config.base_url, config.model, config.json_as, config.json_fallback)
    if key not in _FORMS:
        _FORMS[key] = Forms(config.json_as, config.json_fallback)
    return _FORMS[key]


def forget_forms() -> None:
    """Forgets what was found out: at the same address another server may listen by now."""
    _FORMS.clear()


def in_form(body: dict[str, Any], form: JsonForm) -> dict[str, Any]:
    """The body of a request, asking for its JSON in a form."""
    asked = (body.get("response_format") or {}).get("type")
    if asked is None or form == "json_schema" or (asked == "json_object" and form != "text"):
        return body
    body = dict(body)
    if form == "llguidance":
        adapt_to_llguidance(body)
    elif form == "json_object":
        body["response_format"] = {"type": "json_object"}
    else:
        del body["response_format"]
    return body
