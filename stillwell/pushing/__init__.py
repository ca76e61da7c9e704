"""What is pushed: rows and events that producers write to a view's own topic."""
