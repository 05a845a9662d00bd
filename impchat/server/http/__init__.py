"""What every request and response of the server passes: bodies, errors, who may ask."""
