"""What flows, what features are about, and how they are computed."""
