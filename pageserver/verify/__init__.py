"""Proves that the pages we rebuild are the pages of the live server."""
