"""Exhaustive searches: a model of the commit chain's protocol, and the code that follows it, under every schedule."""
