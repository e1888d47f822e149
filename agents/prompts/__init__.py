"""The shipped prompts: YAML files (`agents.prompt_texts`)."""
