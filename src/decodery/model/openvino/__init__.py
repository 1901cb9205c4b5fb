"""The accelerated CPU backend."""
