"""The errors a person may see: each a code and its values; the sentence comes from `impchat.texts`.

    ImpChatError
    |- SettingsError   an option or argument is out of range or unknown
    |- ImageError      a file cannot be used as a picture
    |- HistoryError    the history file or the data folder cannot be used, or a thing asked for is not in it
    |- ChatError       a conversation cannot do what was asked, or an answer ended badly
    |- ModelError      a bundle is missing, broken or not what its manifest says; a checkpoint cannot be converted
    |- EngineError     a model cannot be run, or stopped running
    `- RequestError    what another program or device asks of the server is refused

In: a code of the catalogue (`image.truncated`) and the values its sentence names. Out: an exception whose str() is
the English sentence. Foreign errors are mapped to these at the boundary, with `from exc`.
This file does not know who prints it.
"""

from __future__ import annotations

from typing import Any

from impchat import texts


class ImpChatError(Exception):
    """An error with a code and values, told to a person in one sentence: what is wrong and what to do."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code, values)
        self.code = code
        self.values = values

    def sentence(self, language: str = "en") -> str:
        """The one sentence for a person, in "en" or "zh"."""
        return texts.say(f"error.{self.code}", language, **self.values)

    def __str__(self) -> str:
        return self.sentence()


class SettingsError(ImpChatError):
    """An option or argument is out of range or unknown."""


class ImageError(ImpChatError):
    """A file cannot be used as a picture."""


class HistoryError(ImpChatError):
    """The history or the data folder cannot be used, or does not hold what was asked for."""


class ChatError(ImpChatError):
    """A conversation cannot do what was asked now, or an answer ended before its time."""


class ModelError(ImpChatError):
    """A bundle is missing, broken or not what its manifest says, or a checkpoint cannot be converted."""


class EngineError(ImpChatError):
    """A model cannot be run, or stopped running."""


class RequestError(ImpChatError):
    """What another program or device asks of the server is refused."""
