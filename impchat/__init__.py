"""ImpChat: talk about pictures with a small model on your own machine. See README.md for the layout."""

import os

# When onnxruntime (1.32) is imported without this, it sends reports about its use to Microsoft, and keeps an id of the
# device in the cache folder; its own `disable_telemetry_events()` stops neither. It is set here, though importing does
# nothing else, because every way into ImpChat imports this package first, and child processes inherit it. A value that
# was there before is replaced: that nothing is sent is promised without conditions (docs/privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
