"""The engine of a server that speaks OpenAI's API."""
