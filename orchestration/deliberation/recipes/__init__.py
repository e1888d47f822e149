"""The recipes that aidsafe ships, one YAML file each."""
