"""What the lyrics model is told: who it is, what the song is about, which sections, and what a draft shall become."""

from __future__ import annotations

from lyrics import CHANGES, LANGUAGES, Lyrics, Refine

SYSTEM = (
    "You write song lyrics. Answer with the lyrics alone: a tag in square brackets before each section, then its lines. "
    "No title, no notes, no explanations."
)
RHYMES = {
    "strict": "Rhyme strictly in couplets (AABB).",
    "loose": "Rhyme loosely; near rhymes are welcome.",
    "none": "Do not rhyme.",
}
CRAFT = "Short lines, plain words, fresh images; every line says something new."


def turns(request: Lyrics) -> list[dict[str, str]]:
    """The conversation that the lyrics are the answer to."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": _wish(request)}]


def told(request: Lyrics) -> str:
    """What of the conversation no line may repeat: the user's own words about the song."""
    return f"{request.brief}\n{request.tone}"


def _wish(request: Lyrics) -> str:
    refines = isinstance(request, Refine)
    lines = ["Rewrite these lyrics." if refines else "Write the lyrics of a song."]
    lines += [f"About: {request.brief}"] if request.brief else []
    lines += [f"Mood: {request.tone}"] if request.tone else []
    lines += [f"Language: {LANGUAGES[request.language]}", f"Rhyme: {RHYMES[request.rhyme]}"]
    if refines:
        return "\n".join([*lines, f"Change: {CHANGES[request.change]}", "", "The lyrics:", "", request.draft])
    sections = (f"[{s.tag}] {s.lines} lines" if s.lines else f"[{s.tag}] without words" for s in request.sections)
    return "\n".join([*lines, f"Sections: {', '.join(sections)}", CRAFT])
