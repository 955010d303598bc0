"""Base models. bitsandbytes warns at import that a kernel which we do not use is not there: nobody needs to read it."""

import logging

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
