"""One engine over many replicas on Ray Serve."""
