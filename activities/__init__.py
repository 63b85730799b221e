"""Thin activities: validate, call a room, map errors. The runtime registers them; workflows know them by name."""
