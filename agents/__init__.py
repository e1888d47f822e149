"""Who speaks: personas, the AutoGen agents and their typed replies, model clients."""
