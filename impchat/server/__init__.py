"""The server: OpenAI's API on top of the core, for programs, paired phones and many users.

In: an open App and HTTP requests. Out: responses in OpenAI's format. Questions and answers of the API are not saved in
the history. This package does not know how an answer is shown.
"""
