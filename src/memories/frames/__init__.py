"""The byte format: parts to frames, and frames, or regions of them, back to parts."""
