"""Sockets to listen at: one for each process, on a port that nobody else has.

With SO_REUSEPORT the kernel spreads connections over the sockets of a port evenly, by their addresses. One socket that
all processes share does not: whoever wakes first takes all that have come, and keeps them (of 64 connections made at
once, one of two processes took all 64 in two of three runs). But every process of the same user may join such a port, a
second deployment by mistake as well. So the first socket takes the port for itself alone, and only then lets others in,
which Linux allows of a socket that is bound already: there is no instant at which a second deployment would not be
refused.

The one that starts the processes keeps the sockets. Those of a process that has died do not listen until its successor
does, so that connections come to the others meanwhile.
"""

import socket
from collections.abc import Sequence

from stillwell.listening import cannot_listen

BACKLOG = 1_024
"""Connections that wait to be taken, for each process."""


def bind(host: str, port: int, processes: int) -> list[tuple[socket.socket, ...]]:
    """For each process the sockets that it is to listen at: one for each address of the host.

    Raises SettingsError where it is not to be had.
    """
    taken: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        columns = [_of_address(family, address, processes, taken) for family, _, _, _, address in _distinct(addresses)]
    except OSError as error:
        for each in taken:
            each.close()
        raise cannot_listen("SERVE", host, port, error, "Give the service a port of its own") from error
    return list(zip(*columns, strict=True))


def _distinct(
    addresses: Sequence[tuple[socket.AddressFamily, int, int, str, tuple[object, ...]]],
) -> list[tuple[socket.AddressFamily, int, int, str, tuple[object, ...]]]:
    return list({(each[0], each[4]): each for each in addresses}.values())


def _of_address(
    family: socket.AddressFamily, address: tuple[object, ...], processes: int, taken: list[socket.socket]
) -> list[socket.socket]:
    made: list[socket.socket] = []
    for number in range(processes):
        each = socket.socket(family, socket.SOCK_STREAM)
        taken.append(each)
        made.append(each)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if number:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        each.bind(address)
        if number == 0:
            # A socket that is bound and does not listen is no obstacle to one that has SO_REUSEADDR as well.
            each.listen(BACKLOG)
            if processes > 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made
