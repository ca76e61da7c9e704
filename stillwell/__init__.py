"""Stillwell: an event-driven feature store."""
