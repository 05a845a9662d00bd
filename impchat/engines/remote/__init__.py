"""The engine over a server of OpenAI's API."""
