"""What must not be shown: passwords, wherever they stand."""

import re

HIDDEN = "***"

# To the last @ before the path: a password may itself hold an @ that nobody escaped.
_URL_PASSWORD = re.compile(r"(://[^/?#\s:@]*):[^/?#\s]*@")
_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|authorization|private_?key", re.IGNORECASE)


def hide_password(text: str) -> str:
    """The text with `***` for the password in each URL within it."""
    return _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def names_a_secret(name: str) -> bool:
    """Whether what is called so is likely to be a secret."""
    return _SECRET_NAME.search(name) is not None
