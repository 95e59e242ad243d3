"""What ZeroGPU says when it gives no GPU, in the studio's words."""

from __future__ import annotations

import re

from errors import GpuAborted, GpuBusy, QuotaError, StudioError, in_our_words

ERRORS = {  # titles of the spaces package's errors: our class, our sentence, what to do
    "ZeroGPU quota exceeded": (QuotaError, "Your GPU time for today does not cover this song.", "A shorter song or fewer steps need less."),
    "ZeroGPU illegal duration": (QuotaError, "This song asks for more GPU time than one visitor may have at once.", "A shorter song or fewer steps need less."),
    "ZeroGPU queue timeout": (GpuBusy, "No GPU came free in time.", "Your words are kept; try again in a minute."),
    "ZeroGPU pending credits exceeded": (QuotaError, "Too many songs of yours are waiting for a GPU.", "Wait for one to finish."),
    "ZeroGPU client error": (GpuBusy, "Your GPU pass has expired.", "Reload the page and try again."),
    "ZeroGPU worker error": (GpuAborted, "The GPU stopped before the song was done, twice.", "Try fewer steps or a shorter song."),
}  # fmt: skip


def of_zero_gpu(error: Exception) -> StudioError:
    """An error of the spaces package (a `gr.Error` known by its title) in our words, with its figures."""
    words = str(error)
    # spaces files "no GPU" under several titles
    title = "ZeroGPU queue timeout" if "No GPU was available" in words else getattr(error, "title", "")
    if not (known := ERRORS.get(title)):
        return in_our_words(error)
    kind, message, hint = known
    if kind is GpuAborted and "aborted" not in words:  # a class name: our code raised in the worker
        return in_our_words(error)
    if figures := re.search(r"\d+s requested vs\. -?\d+s left", words):
        message = f"{message[:-1]} ({figures[0]})."
    if when := re.search(r"Try again in [\w ,:]+", words):
        hint = f"{when[0].strip()}, or try a shorter song."
    return kind(message, hint)
