"""Owners of this machine's TCP sockets, from Linux's /proc/net, which every account can read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LISTENING = "0A"
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")  # 127.0.0.1, ::1, 127.0.0.1 in IPv6


class Socket(NamedTuple):
    """One row of the table: `local` and `remote` are hexadecimal `ADDRESS:PORT`, addresses in native byte order."""

    local: str
    remote: str
    state: str
    uid: int
    inode: str


def sockets() -> Iterator[Socket]:
    """Yields the TCP sockets that the kernel lists for this machine."""
    for table in ("tcp", "tcp6"):
        file = Path("/proc/net") / table
        for line in file.read_text().splitlines()[1:] if file.exists() else ():
            field = line.split()
            yield Socket(field[1], field[2], field[3], int(field[7]), field[9])


def inodes_of_this_process() -> set[str]:
    """Returns the `inode` of each socket that this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            link = str(entry.readlink())
        except OSError:  # closed in the meantime
            continue
        if link.startswith("socket:["):
            found.add(link[8:-1])
    return found


def strangers() -> set[int]:
    """Returns the other accounts that are peers of this process's loopback connections."""
    mine = inodes_of_this_process()
    rows = list(sockets())
    owner = {(row.local, row.remote): row.uid for row in rows}
    ends = {
        (row.remote, row.local)
        for row in rows
        if row.inode in mine and row.state != LISTENING and row.remote.split(":")[0] in LOOPBACK
    }
    return {owner[end] for end in ends if end in owner} - {os.getuid()}


def listeners(port: int) -> set[int]:
    """Returns the accounts that listen on a port of this machine."""
    return {row.uid for row in sockets() if row.state == LISTENING and int(row.local.split(":")[1], 16) == port}
