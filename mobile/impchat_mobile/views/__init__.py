"""The screens and their parts, one per file."""
