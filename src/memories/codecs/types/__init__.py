"""One codec per family of types, each imported when a value or a frame of it is met."""
