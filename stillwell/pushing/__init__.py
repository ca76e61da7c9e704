"""Pushing rows: what a push topic's records hold, and the token by which a push can be read back. Pure."""
