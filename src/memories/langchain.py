"""A store and a cache of LangChain (the extra `langchain`)."""

from memories.integrations.langchain import LangchainCache, LangchainStore

__all__ = ["LangchainCache", "LangchainStore"]
