"""What flows in this deployment: the flights out of New York, and the weather at its airports.

One module per topic, with its card (the docstring), its columns and the views computed from it; `entities` holds what
they are about, `delays` what is computed and predicted from them when somebody asks. `golden/<topic>/<case>.json` are
examples of records, each named after its edge case, with what must become of it. Nothing here does I/O, and nobody
imports it: it is loaded by the name in the settings.
"""
