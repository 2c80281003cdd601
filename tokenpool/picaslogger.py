"""The logger that picas scripts share: named PiCaS, from INFO upwards, on standard error."""

import logging

picaslogger = logging.getLogger("PiCaS")
formatter = logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
ch = logging.StreamHandler()
ch.setLevel(logging.DEBUG)
ch.setFormatter(formatter)

# picas itself, or a reload, may have been here before: one handler, one line per message. The exact type, because
# others (pytest) add handlers of their own kinds.
if not any(type(handler) is logging.StreamHandler for handler in picaslogger.handlers):
    picaslogger.addHandler(ch)
    picaslogger.setLevel(logging.INFO)
# A root handler would print every line a second time.
picaslogger.propagate = False
