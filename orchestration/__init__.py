"""How the agents work together: group chat, records, runs, export and the command line."""
