"""Where prompts come from, and what one is."""
