"""What JSON can hold of the values of a row."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Mapping

from pydantic import JsonValue


def to_json(value: object, depth: int = 50) -> JsonValue:
    """What JSON can hold of a value; placeholders such as `<3 bytes>` for the rest.

    One stands, too, for what is nested more than `depth` levels deep.
    """
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping() if depth:
            return {str(key): to_json(item, depth - 1) for key, item in value.items()}
        case list() | tuple() if depth:
            return [to_json(item, depth - 1) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID() | datetime.timedelta():
            return str(value)
        case bytes():
            return f"<{len(value)} bytes>"
    if depth and hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return to_json(value.tolist(), depth - 1)
    return f"<{type(value).__name__}>"
