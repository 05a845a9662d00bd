"""ImpChat: talk about pictures with a small model on your own machine. See README.md for the layout."""
