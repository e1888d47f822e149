"""The commands of `aidsafe`, one module each; `app.py` lists them."""
