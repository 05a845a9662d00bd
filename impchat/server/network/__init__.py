"""Where the server listens, how it is found, and TLS."""
