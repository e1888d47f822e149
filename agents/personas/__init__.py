"""The personas that aidsafe ships, one YAML file each."""
