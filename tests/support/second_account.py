"""Another account of this machine, for tests that run as root: `nobody`, with no group of ours and no way back."""

import os
import subprocess
import sys

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to be a second account")

# What the interpreter may need later is loaded first: its folder may be closed to the account.
BECOME = """
import encodings.idna, http.client, json, os, pathlib, pickle, socket, stat, subprocess, sys, tempfile, time
os.chdir("/")
os.setgroups([int(group) for group in sys.argv[2].split(",") if group])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
code, sys.argv = sys.argv[3], sys.argv[3:]
exec(code)
"""


def start(code: str, *arguments: str, uid: int = NOBODY, groups: tuple[int, ...] = (), **options) -> subprocess.Popen:
    command = [sys.executable, "-c", BECOME, str(uid), ",".join(map(str, groups)), code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(code: str, *arguments: str, uid: int = NOBODY, groups: tuple[int, ...] = ()) -> str:
    """What `code` printed as that account."""
    child = start(code, *arguments, uid=uid, groups=groups)
    said, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    return said
