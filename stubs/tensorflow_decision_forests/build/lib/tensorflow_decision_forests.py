"""Empty on purpose: see pyproject.toml beside it."""
