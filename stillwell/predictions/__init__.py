"""Cached predictions: what a model said of an entity, whether that still holds, and how it is asked again.

Pure, but for the model's server, the store and the topic of hints, which stand behind narrow ports.
"""
