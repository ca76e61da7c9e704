"""Definitions: what users write to say what flows, what features are about, and how they are computed.

Classes are read once, when they are made, into the values of `stillwell.spec`; nothing else looks at a class.
"""

from stillwell.definitions.columns import Col, Feature, Key, Output, col, feature, output, rule
from stillwell.definitions.entity import Entity
from stillwell.definitions.functions import Rows, frame, rows
from stillwell.definitions.model import Model, OpenInference
from stillwell.definitions.on_demand import AS_OF, OnDemandView
from stillwell.definitions.request import Request
from stillwell.definitions.service import FeatureService
from stillwell.definitions.topic import Topic
from stillwell.definitions.view import View

__all__ = [
    "AS_OF",
    "Col",
    "Entity",
    "Feature",
    "FeatureService",
    "Key",
    "Model",
    "OnDemandView",
    "OpenInference",
    "Output",
    "Request",
    "Rows",
    "Topic",
    "View",
    "col",
    "feature",
    "frame",
    "output",
    "rows",
    "rule",
]
