"""In-memory twins of the stores, and what tests of Stillwell and of its users need."""
