"""The universal backend."""
