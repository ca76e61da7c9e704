"""Why nobody can be listened to at an address, and which setting is to be corrected."""

import errno

from stillwell.errors import SettingsError


def cannot_listen(of: str, host: str, port: int, error: OSError, if_taken: str) -> SettingsError:
    """What to raise. of: `WEB` or `SERVE`, as in STILLWELL_WEB_PORT; if_taken: what to do where the port is taken."""
    match error.errno:
        case errno.EADDRINUSE:
            mend = if_taken
        case errno.EACCES:
            mend = "Take a port above 1023: those below are for who has rights"
        case _:
            mend = f"Correct STILLWELL_{of}_HOST: it is an address of this machine, or 0.0.0.0 for all of them"
    where = f"STILLWELL_{of}_PORT is {port}, where {host} cannot be listened at"
    return SettingsError(f"{where}: {error.strerror}. {mend}")
