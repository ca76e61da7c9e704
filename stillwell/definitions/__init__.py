"""Definitions: what users write to say what flows, what features are about, and how they are computed.

Classes are read once, when they are made, into the values of `stillwell.spec`; nothing else looks at a class.
"""

from stillwell.definitions.columns import Col, Feature, Key, col, feature
from stillwell.definitions.entity import Entity
from stillwell.definitions.rows import Rows, rows
from stillwell.definitions.topic import Topic
from stillwell.definitions.view import View

__all__ = ["Col", "Entity", "Feature", "Key", "Rows", "Topic", "View", "col", "feature", "rows"]
