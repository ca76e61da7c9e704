"""Trains the model that the tests ask, on the flights out of New York in 2013: how late a flight arrives.

Runs in the model server's environment, which lacks Stillwell: `python train.py FLIGHTS.csv MODEL.joblib`.
"""

import sys

import joblib  # type: ignore[import-not-found]
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor  # type: ignore[import-not-found]

_FLIGHTS = 50_000
"""More make it no better for a test, and slower."""


def train(flights: str) -> HistGradientBoostingRegressor:
    """From how late a flight departed, whether that is late at all, and how far it goes. Knows missing values."""
    table = pd.read_csv(flights, nrows=_FLIGHTS).dropna(subset=["arr_delay"])
    inputs = pd.DataFrame(
        {
            "late": table["dep_delay"].fillna(0) > 15,
            "delay": table["dep_delay"].astype("float32"),
            "distance": table["distance"].astype("int32"),
        }
    )
    return HistGradientBoostingRegressor(max_iter=40, random_state=7).fit(inputs, table["arr_delay"])


if __name__ == "__main__":
    joblib.dump(train(sys.argv[1]), sys.argv[2])
