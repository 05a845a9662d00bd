"""The English catalogue: key -> sentence with {places}. The same keys and places as `zh`."""

TEXTS: dict[str, str] = {
    "app.name": "ImpChat",
}
