"""Backends: frames by key on one medium, and no policy."""
