"""docs/compatibility.md, made from the OpenAPI document, what the contract tests called, and `notes.toml`."""
