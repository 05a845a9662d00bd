"""One engine made of many replicas on Ray Serve."""
