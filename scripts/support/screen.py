"""Readable output for people in a terminal: plain ANSI, none when NO_COLOR is set or in a pipe."""

from __future__ import annotations

import os
import sys
import textwrap


class Screen:
    """Writes to standard output, a line or a piece of a line at a time."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def title(self, text: str) -> None:
        self._line(self._styled(text, "1"))

    def step(self, number: int, text: str) -> None:
        self._line(f"\n{self._styled(f'{number}  {text}', '1;36')}")

    def field(self, name: str, value: str) -> None:
        self._line(f"   {self._styled(f'{name:<12}', '2')} {value}")

    def say(self, text: str) -> None:
        self._line(textwrap.fill(text, 96, initial_indent="   ", subsequent_indent="   "))

    def command(self, text: str) -> None:
        """Something to type: never wrapped, so that it can be copied."""
        self._line(f"     {self._styled(text, '33')}")

    def good(self, text: str) -> None:
        self._line(f"   {self._styled('ok', '32')}  {text}")

    def bad(self, text: str) -> None:
        self._line(f"   {self._styled('failed', '1;31')}  {text}")

    def piece(self, text: str) -> None:
        """A part of a line, shown at once."""
        self._write(self._styled(text, "36"))

    def line(self) -> None:
        self._line("")

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text else text

    def _line(self, text: str) -> None:
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
