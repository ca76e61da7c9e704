"""A real model server, in an environment that Stillwell is not in, and the model that it serves."""
