"""Programs that picas users know by name."""
