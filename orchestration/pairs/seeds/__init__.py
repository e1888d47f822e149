"""The seeds that aidsafe ships, one YAML file each."""
