"""Who cannot listen at an address is told which setting to correct: the port, or the host."""

import pytest

from serving.processes.sockets import bind
from stillwell.errors import SettingsError
from stillwell.listening import cannot_listen
from stillwell.local import free_port
from stillwell.settings import Settings
from streams.app import _require_port


def test_a_host_that_is_not_of_this_machine_is_to_be_corrected() -> None:
    host = "192.0.2.1"  # an address that documents have, and no machine
    with pytest.raises(SettingsError, match=r"cannot be listened at: .*\. Correct STILLWELL_SERVE_HOST: it is an"):
        bind(host, free_port(), 1)
    with pytest.raises(SettingsError, match=r"cannot be listened at: .*\. Correct STILLWELL_WEB_HOST: it is an"):
        _require_port(Settings.model_construct(web_host=host, web_port=free_port()))


def test_a_port_that_is_not_for_everybody_is_told_so() -> None:
    """Root, as which tests may run, may have any."""
    error = cannot_listen("WEB", "127.0.0.1", 80, PermissionError(13, "Permission denied"), "Take another")
    assert str(error).endswith("Permission denied. Take a port above 1023: those below are for who has rights")
