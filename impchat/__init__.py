"""ImpChat: talk about pictures with a small model on your own machine. See README.md for the layout."""

import os

# When onnxruntime (1.32) is imported without this, it sends usage reports to Microsoft and stores a device id in the
# cache folder; its `disable_telemetry_events()` prevents neither. It is set here, although importing does nothing else,
# because every entry point imports this package first and child processes inherit it. An existing value is replaced:
# docs/privacy.md promises without conditions that nothing is sent.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
