"""Encryption at rest: master keys, the data keys that they wrap, and the blobs those encrypt."""
