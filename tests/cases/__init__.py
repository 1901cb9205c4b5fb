"""Inputs that once failed, a file for each kind of fault."""
