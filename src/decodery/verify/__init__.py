"""Verifiers: one file each."""
