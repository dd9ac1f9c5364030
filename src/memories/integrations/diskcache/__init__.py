"""The interface of diskcache over a store that several processes write: `memories.diskcache`."""
