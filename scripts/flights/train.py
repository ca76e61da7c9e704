"""Trains the delay model: how late the next departure on a route will be.

Runs in the model server's environment, which lacks Stillwell: `python train.py EXAMPLES.csv MODEL.joblib REPORT.json`.
The last tenth of the examples is kept back, to tell by how many minutes the model is off. Unknown values are empty.
"""

import json
import sys
from pathlib import Path

import joblib  # type: ignore[import-not-found]
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor  # type: ignore[import-not-found]
from sklearn.metrics import mean_absolute_error  # type: ignore[import-not-found]


def train(examples: str, model: str, report: str) -> None:
    """Write the model, and last, so that who sees it may use the model, the report."""
    table = pd.read_csv(examples, dtype="float32").astype({"miles": "int32"})
    inputs, minutes = table.drop(columns="minutes"), table["minutes"]
    begin = len(table) * 9 // 10
    fitted = HistGradientBoostingRegressor(max_iter=60, random_state=2013).fit(inputs[:begin], minutes[:begin])
    told = {
        "examples": begin,
        "off_by": float(mean_absolute_error(minutes[begin:], fitted.predict(inputs[begin:]))),
        "mean_off_by": float((minutes[begin:] - minutes[:begin].mean()).abs().mean()),
    }
    joblib.dump(fitted, model)
    unfinished = Path(report).with_suffix(".part")
    unfinished.write_text(json.dumps(told))
    unfinished.rename(report)


if __name__ == "__main__":
    train(*sys.argv[1:])
