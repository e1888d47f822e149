"""Model clients: endpoints that speak the OpenAI protocol, and the embedded model."""
