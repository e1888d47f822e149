"""Who speaks: personas, the AutoGen agents and their typed replies, model clients."""

import warnings

# AutoGen's OpenAI client logs structured replies of guests (an `AssistantAgent` with an output
# type) through a field that the SDK declares as always empty, and pydantic warns of it once a call.
# Nothing is lost, and nobody can act on it. Every other warning, pydantic's included, still shows.
warnings.filterwarnings(
    "ignore",
    message=r"Pydantic serializer warnings:\n  PydanticSerializationUnexpectedValue\("
    r"Expected `none`[^\n]*\[field_name='parsed',[^\n]*\Z",
    category=UserWarning,
    module=r"pydantic\.main\Z",
)
