"""The errors shown to users. Each has a code and values; its sentence comes from `impchat.texts`.

ImpChatError
|- SettingsError   an option or argument is out of range or unknown
|- ImageError      a file cannot be used as a picture
|- HistoryError    the history file or the data folder cannot be used, or does not contain the requested item
|- ChatError       a conversation cannot do what was requested, or an answer ended with an error
|- ModelError      a bundle is missing, broken or differs from its manifest; a checkpoint cannot be converted
|- EngineError     a model cannot run, or stopped running
`- RequestError    the server refuses the request of a program or device

In: a code of the catalogue (`image.truncated`) and the values of its sentence. Out: an exception whose str() is the
English sentence. Errors of other packages are mapped to these at the boundary, with `from exc`.
This file does not know who prints it.
"""

from __future__ import annotations

from typing import Any

from impchat import texts


class ImpChatError(Exception):
    """An error with a code and values, shown to the user as one sentence: what is wrong and what to do."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code, values)
        self.code = code
        self.values = values

    def sentence(self, language: str = "en") -> str:
        """The sentence for the user, in "en" or "zh"."""
        return texts.say(f"error.{self.code}", language, **self.values)

    def __str__(self) -> str:
        return self.sentence()


class SettingsError(ImpChatError):
    """An option or argument is out of range or unknown."""


class ImageError(ImpChatError):
    """A file cannot be used as a picture."""


class HistoryError(ImpChatError):
    """The history or the data folder cannot be used, or does not contain the requested item."""


class ChatError(ImpChatError):
    """A conversation cannot do what was requested, or an answer ended with an error."""


class ModelError(ImpChatError):
    """A bundle is missing, broken or differs from its manifest, or a checkpoint cannot be converted."""


class EngineError(ImpChatError):
    """A model cannot run, or stopped running."""


class RequestError(ImpChatError):
    """The server refuses the request of a program or device."""
