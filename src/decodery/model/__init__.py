"""Models, their caches and sessions."""
