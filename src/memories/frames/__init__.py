"""The byte format: parts to frames, and frames, or regions of them, back to parts.

Of the codecs, only `base`, `buffers` and `arrays` are used here, and `registry` for the one thing
that a codec adds to a frame: the prelude that makes its body a file of another kind.
"""
