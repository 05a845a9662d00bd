"""The server: OpenAI's API over the core, for programs, phones and crowds.

In: an open App and HTTP. Out: answers as other software expects them. Nothing asked here is written into the history.
This package does not know who shows an answer.
"""
