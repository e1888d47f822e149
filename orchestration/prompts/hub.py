"""Rows of data sets on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from orchestration.prompts.files import HUB_NAME
from orchestration.prompts.formats import Rows
from orchestration.prompts.location import RowLocation, first_line, missing_package
from policies.errors import InputError

HUB_PATIENCE_SECONDS = 60.0
"""How long a Hugging Face data set may take to its first row; the library has no such limit."""

_T = TypeVar("_T")


def hub_rows(source: str, location: RowLocation) -> Rows:
    """The rows of a data set, streamed."""
    name, config, split = (*source.removeprefix("hf:").split(":", 2), "", "")[:3]
    if not HUB_NAME.fullmatch(name):
        raise InputError(
            f"{source} does not name a Hugging Face data set.",
            "Write hf:owner/name, hf:owner/name:config or hf:owner/name:config:split.",
        )
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise missing_package("Hugging Face data sets", "datasets") from error

    def open_and_read_first() -> tuple[Any, Iterator[Any]]:
        # Without the Hub, load_dataset retries for half a minute; this request fails at once.
        # If the Hub answers, if only with an error, load_dataset says better what is wrong.
        with suppress(huggingface_hub.errors.HfHubHTTPError):
            huggingface_hub.HfApi().dataset_info(name, timeout=10)
        data = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        rows = iter(data)
        return next(rows, None), rows

    number = 0
    try:
        first, rest = _within(HUB_PATIENCE_SECONDS, open_and_read_first)
        while first is not None:
            number += 1
            yield number, first
            first = next(rest, None)
    except Exception as error:
        what = f"the data set cannot be read ({first_line(error)})"
        remedy = "Check name, config, split and connection; or download it and pass a file of it."
        raise location.error(number, what, remedy) from error


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """Give up waiting after some seconds; the daemon thread then does not hold up the exit."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 (the caller gets it)
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from error
