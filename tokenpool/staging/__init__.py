"""Brings inputs to a token and takes its outputs where they belong."""
