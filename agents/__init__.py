"""Who speaks: personas, the AutoGen agents and their typed replies, model clients."""

import warnings

# AutoGen's OpenAI client logs structured replies of guests (an `AssistantAgent` with an output
# type) through a field that the SDK declares as always empty, so pydantic warns once a call. There
# is nothing to be done about it. Every other warning, pydantic's included, is still shown.
warnings.filterwarnings(
    "ignore",
    message=r"Pydantic serializer warnings:\n  PydanticSerializationUnexpectedValue\("
    r"Expected `none`[^\n]*\[field_name='parsed',[^\n]*\Z",
    category=UserWarning,
    module=r"pydantic\.main\Z",
)
