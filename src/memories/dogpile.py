"""A backend of dogpile.cache (the extra `dogpile`)."""

from memories.integrations.dogpile import DogpileBackend

__all__ = ["DogpileBackend"]
