"""One module per family of types, imported when a value or a frame first needs it."""
