"""A cache backend of Django (the extra `django`)."""

from memories.integrations.django import DjangoCache

__all__ = ["DjangoCache"]
