"""Constraints: one file each, and the walk of a constraint over a tree."""
