"""What a caller may say to a manager, checked before anything is touched."""
