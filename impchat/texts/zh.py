"""The Chinese catalogue: key -> sentence with {places}. The same keys and places as `en`."""

TEXTS: dict[str, str] = {
    "app.name": "ImpChat",
}
