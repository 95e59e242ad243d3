"""Lyrics in the sections that were asked for, whatever the model: it is asked for one line after another.

What is certain (tags, empty lines, words that stay, a chorus that comes again) is read, not hoped for. A line that cannot
stand is taken back and begun otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from errors import BadOutput
from lm import Sampling, Speaker
from sections import LINE_TOKENS, Again, Line, Piece, Rules, Said, parts
from wording import Wording, tidied

TRIES = 12  # ways to begin a line
OVERRUN = 6  # tokens that the word at the end of a full line may still take


@dataclass
class Writer:
    """One text being written. `chances` are numbers in [0, 1), one for each draw."""

    lm: Speaker
    wording: Wording
    how: Sampling
    chances: Iterator[float]
    rules: Rules = field(default_factory=Rules)
    on_token: Callable[[str, int], None] = lambda text, written: None  # the text so far, lines written; may raise
    done: str = ""
    lines: list[str] = field(default_factory=list)  # all of the text
    drawn: int = 0  # tokens

    def write(self, prompt: Sequence[int], pieces: Sequence[Piece], budget: int) -> str:
        """The whole text of the pieces. `budget` is how many tokens may be drawn, shared out among the lines to write.

        Raises BadOutput when the model finds no line that can stand, or numbers that are not finite.
        """
        count = sum(isinstance(piece, Line) for piece in pieces)
        certain = sum(len(self.wording.encode(piece.text)) + 2 for piece in pieces if isinstance(piece, Said))
        again = [piece.lines for piece in pieces if isinstance(piece, Again)]
        room = certain * (1 + len(again)) + (count + sum(again)) * (LINE_TOKENS[1] + 2 * OVERRUN)
        self._text = self.lm.text(prompt, room)
        self._unread, written = "", 0
        for piece in pieces:
            if isinstance(piece, Said):
                self._certain(piece.text, [line for part in parts(piece.text) for line in part.lines])
            elif isinstance(piece, Again):
                lines = self.lines[piece.first : piece.first + piece.lines]
                self._certain("".join(f"{line}\n" for line in lines), lines)
            else:
                share = (budget - self.drawn) // (count - written)
                self._write(piece, min(max(share, LINE_TOKENS[0]), LINE_TOKENS[1]), written)
                written += 1
        return self.done

    def _certain(self, text: str, lines: Sequence[str]) -> None:
        self.done += text
        self._unread += text
        self.lines += lines

    def _write(self, piece: Line, longest: int, written: int) -> None:
        """Write one line and its end; what was begun of it stands in `done` already."""
        # The blank before a word is part of its token: the model would not expect a word after it.
        if ids := self.wording.encode(self._unread.rstrip(" ")):
            self._text.feed(ids)
        self._unread = self._unread[len(self._unread.rstrip(" ")) :]
        mark, barred = self._text.mark(), []
        for _ in range(TRIES):
            tokens, line = self._draw(piece, longest, barred, written)
            if piece.begun or not self.rules.refusal(line, self.lines):
                del self.lines[len(self.lines) - bool(piece.begun) :]  # what was begun of it
                self._certain(f"{line}\n", [(piece.begun + line).strip()])
                read = self.wording.text(tokens, "replace")
                if self._unread.startswith(read):
                    self._unread = self._unread[len(read) :]
                else:  # it was tidied: the model shall go on from what stands there
                    self._text.back(mark)
                return
            barred.append(tokens[0])
            self._text.back(mark)
        raise BadOutput("The lyrics model goes in circles.", "Try another seed, a higher temperature or another brief.")

    def _draw(self, piece: Line, longest: int, barred: Sequence[int], written: int) -> tuple[list[int], str]:
        """A line as the model draws it: what it has read of it, the first of which is none of `barred`, and the words."""
        tokens: list[int] = []
        line, end, full = "", None, 0
        while full < OVERRUN:
            full += len(tokens) >= longest or 0 < piece.longest <= len(line)
            if full and "\u2e80" <= line[-1:] < "\uac00":  # scripts without blanks: a line may end anywhere
                break
            among = "rest" if full else "line" if tokens or piece.begun else "start"
            token = self._text.pick(among, self.how, next(self.chances), () if tokens else barred)
            self.drawn += 1
            if (end := self.wording.ends(token)) is not None:
                break
            tokens.append(token)
            line = self.wording.text(tokens)
            self.on_token(self.done + line, written)
            self._text.feed([token])
        gap = " " if piece.begun and not piece.begun.endswith(" ") and line.startswith(" ") else ""
        line = tidied(line + (end or ""))
        return tokens, gap + (self.rules.whole(line) if full else line)
