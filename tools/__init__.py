"""Programs for developers of ImpChat."""
