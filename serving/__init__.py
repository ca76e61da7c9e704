"""Reading back: features and predictions, over HTTP."""
