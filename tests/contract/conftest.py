"""`sdk/` is run by `test_sdks.py`, once per SDK, in interpreters of their own."""

collect_ignore = ["sdk"]
