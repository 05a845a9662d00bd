"""HTTP handling shared by all routes of the server: request bodies, errors, access checks."""
