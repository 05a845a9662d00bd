"""The history in SQLite: conversations, messages, pictures, search, import and export."""
