"""The words: the glossary agrees with the code, and no invented word comes back.

It reads the sources as text and imports nothing of the library.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # Each test reads all sources, on a busy machine, too.

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"
MODULES = sorted((ROOT / "src" / "memories").rglob("*.py"))
CHECKS = sorted(
    path
    for folder in ("tests", "benchmarks", "days", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__).resolve()  # It must name the words.
)
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {GLOSSARY})

# The words of this field that the code uses most. Each must be explained in the glossary.
MOST_USED = [
    "archive", "backend", "budget", "bucket", "catalog", "chunk", "codec", "entry", "epoch",
    "event", "eviction", "form", "frame", "front", "head", "hierarchy", "incarnation", "index",
    "journal", "lease", "log", "manifest", "medium", "move", "node", "operation", "pack", "parts",
    "payload", "piece", "pin", "policy", "quorum", "record", "register", "replica", "row", "rule",
    "run", "segment", "shard", "slot", "snapshot", "storage", "terms", "tier", "tombstone", "trace",
    "value", "version", "victim",
]  # fmt: skip

# Words that were invented here, and the words of the field that took their place.
INVENTED = {
    "crew": "thread pool",
    "everybody": "every user, every reader",
    "grave": "obsolete file",
    "graves": "obsolete files",
    "graveyard": "obsolete files",
    "homecoming": "tier restore",
    "lent": "pending",
    "keeper": "periodic thread",
    "loan": "background import",
    "loans": "background imports",
    "mending": "register repair",
    "nobody": "no thread, no process",
    "parcel": "payload",
    "roster": "member list",
    "somebody": "a user, another process",
    "shipper": "uploader",
    "told": "an exact verb",
    "swift": "unanimous read",
    "whoever": "the thread, process or user that",
    "wish": "read options",
    "anybody": "any process, any user",
    "he": "it",
    "him": "it",
    "himself": "itself",
    "his": "its",
    "whom": "which",
}
# Phrases that make a person of a thread, a lock or a node, and what to write instead.
PHRASES = {
    "has a say": "votes",
    "hear of": "get",
    "hears of": "gets",
    "let go of": "release",
    "lets go": "releases",
    "the one idea": "a plain description",
}

NUMBERS = "three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
PARTS = "methods|modules|classes|source files|codecs|backends"
COUNTED = re.compile(rf"\b(?:{NUMBERS}) (?:(?:public|abstract|own) )?(?:{PARTS})\b", re.IGNORECASE)


def name_of(path: Path) -> str:
    """Return how a failing test should call a file."""
    return str(path.relative_to(ROOT))


@cache
def text_of(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text("utf-8")


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case, with identifiers split into theirs."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}


def terms() -> list[str]:
    """Return the words that the glossary explains."""
    return sorted(set(re.findall(r"\*\*(.+?)\*\*", text_of(GLOSSARY))))


def pattern_of(term: str) -> re.Pattern[str]:
    """Return what finds a term, singular or plural, in prose and in identifiers."""
    stem = re.sub(r"(?<=[^aeiou])y$", "(?:y|ies)", "[ _-]?\\s*".join(re.split(r"[ -]", term)))
    return re.compile(rf"(?<![a-z]){stem}(?:s|es)?(?![a-z])", re.IGNORECASE)


def test_every_word_of_the_glossary_is_used() -> None:
    """A word that nothing uses is one that a reader learns in vain."""
    texts = [text_of(path) for path in [*MODULES, *DOCUMENTS]]
    unused = {
        term
        for term in terms()
        for pattern in [pattern_of(term)]
        if not any(pattern.search(text) for text in texts)
    }
    assert set() == unused


@pytest.mark.parametrize("word", MOST_USED)
def test_the_most_used_words_are_explained(word: str) -> None:
    """A newcomer meets each of these on the first day."""
    explained = set(terms()) | {"policy"}  # Explained with `tier` and `eviction`.
    assert {word, f"{word}s"} & explained
    pattern = pattern_of(word)
    assert 20 < sum(len(pattern.findall(text_of(path))) for path in MODULES)


def test_no_invented_word_comes_back() -> None:
    """A good engineer should not have to learn a private language first."""
    found = {}
    for path in [*MODULES, *CHECKS]:
        words = words_of(text_of(path)) | words_of(path.stem)
        prose = " ".join(text_of(path).lower().replace("#", " ").split())
        found[name_of(path)] = {
            **{word: INVENTED[word] for word in words & set(INVENTED)},
            **{phrase: say for phrase, say in PHRASES.items() if phrase in prose},
        }
    assert {} == {name: instead for name, instead in found.items() if instead}


def test_no_number_in_prose_counts_the_code() -> None:
    """ "Nine methods" is untrue after the next change, and nothing notices."""
    counted = {name_of(path): COUNTED.findall(text_of(path)) for path in [*MODULES, *DOCUMENTS]}
    assert {} == {name: found for name, found in counted.items() if found}
