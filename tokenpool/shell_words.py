"""Parts the text of a shell script into the words of its commands, as far as no shell has to run to know them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .errors import BadInput

_FILL_IN = "let the shell run the script: docs/how-to/from-pytq.md has the three lines that make tokens of it"
_BRACES = re.compile(r"\{[^{}\s]*(,|\.\.)[^{}\s]*\}")


def command_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each command with the number of its first line; comments and empty lines are left out.

    Quotes and backslashes are the shell's. Raises BadInput where only a running shell could tell the words: variables,
    loops, pipes.

    >>> list(command_lines("echo 'a b' \\\\\\n  c  # why\\n"))
    [(1, ['echo', 'a b', 'c'])]
    """
    reader = _Reader(text)
    while (words := reader.command()) is not None:
        if words:
            yield reader.began, words


class _Reader:
    """Reads letter by letter."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.line, self.began = text, 0, 1, 1

    def command(self) -> list[str] | None:
        """Return the words up to the end of a command; None: there is nothing more."""
        words: list[str] = []
        word: str | None = None
        self.began = self.line
        if self.at >= len(self.text):
            return None
        while self.at < len(self.text):
            letter = self._next()
            if letter in "\n;":
                break
            if letter in " \t\r":
                words += [word] if word is not None else []
                word = None
            elif letter == "#" and word is None:
                self._skip_line()
            elif letter == "\\" and self._peek() == "\n":
                self._next()
            else:
                if word is None and not words:
                    self.began = self.line
                word = (word or "") + self._piece(letter)
        return words + ([word] if word is not None else [])

    def _piece(self, letter: str) -> str:
        """Return what a letter, or the quoted text that it opens, adds to a word."""
        if letter == "'":
            return self._until("'")
        if letter == '"':
            return self._double()
        if letter == "\\":
            return self._next() if self.at < len(self.text) else ""
        if letter == "$" and self._peek() == "'":
            self._next()
            return _unescaped(self._until("'", escapes=True))
        # A pattern that no file fits stands for itself: the question mark of a URL.
        if letter in "$`&|<>()" or (letter == "{" and _BRACES.match(self.text, self.at - 1)):
            self._refuse(letter)
        return letter

    def _double(self) -> str:
        found = ""
        while True:
            if self.at >= len(self.text):
                self._open('"')
            letter = self._next()
            if letter == '"':
                return found
            if letter in "$`":
                self._refuse(letter)
            if letter == "\\" and self._peek() in '$`"\\\n':
                letter = self._next()
                letter = "" if letter == "\n" else letter
            found += letter

    def _until(self, end: str, escapes: bool = False) -> str:
        found = ""
        while True:
            if self.at >= len(self.text):
                self._open(end)
            letter = self._next()
            if letter == end:
                return found
            if escapes and letter == "\\" and self.at < len(self.text):
                letter += self._next()
            found += letter

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        letter = self.text[self.at]
        self.at += 1
        self.line += letter == "\n"
        return letter

    def _skip_line(self) -> None:
        while self.at < len(self.text) and self._peek() != "\n":
            self._next()

    def _open(self, quote: str) -> None:
        raise BadInput(f"line {self.began}: a quote {quote} is not closed", "look at the quotes of this line")

    def _refuse(self, letter: str) -> None:
        raise BadInput(f"line {self.line}: only a shell knows what {letter!r} stands for", _FILL_IN)


def _unescaped(text: str) -> str:
    """Return what ``$'...'`` means, as `printf %q` writes what cannot be printed."""
    escaped = re.sub(r"\\[eE]", r"\\x1b", text).encode("utf-8").decode("unicode_escape")
    return escaped.encode("latin-1", "replace").decode("utf-8", "replace")
