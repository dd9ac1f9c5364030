"""`python -m memories`: the command line."""

from __future__ import annotations

from memories.cli import main

if __name__ == "__main__":
    main()
