"""A real HTTP endpoint that speaks the OpenAI protocol and misbehaves on demand."""

from tests.endpoint.faults import Fault
from tests.endpoint.schema_reply import SchemaError, draw_instance
from tests.endpoint.server import Call, Endpoint

__all__ = ["Call", "Endpoint", "Fault", "SchemaError", "draw_instance"]
