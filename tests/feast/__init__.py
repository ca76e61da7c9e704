"""Feast's own client and server, each a process in an environment that Stillwell is not in."""
