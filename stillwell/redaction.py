"""What must not be shown: passwords, wherever they stand."""

import re

HIDDEN = "***"

# To the last @ before the path: user and password may themselves hold an @ that nobody escaped.
_URL_PASSWORD = re.compile(r"(://[^/?#\s:]*):[^/?#\s]*@")
_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|authorization|private_?key", re.IGNORECASE)
# Names end somewhere, or a long text without `=` would be searched anew from each of its words.
_QUERY_SECRET = re.compile(
    rf"([?&][^=?&#\s]{{0,64}}(?:{_SECRET_NAME.pattern})[^=?&#\s]{{0,64}}=)[^&#\s]*", re.IGNORECASE
)


def hide_password(text: str) -> str:
    """The text with `***` for the password in each URL within it, before its host or in its query."""
    return _QUERY_SECRET.sub(rf"\1{HIDDEN}", _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text))


def names_a_secret(name: str) -> bool:
    """Whether what is called so is likely to be a secret."""
    return _SECRET_NAME.search(name) is not None
