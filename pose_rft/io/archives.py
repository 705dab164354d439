"""Tar archives of releases, read member by member in memory: nothing is unpacked, no name becomes a path.

A member counts only if it is a plain file with a plain relative name; links, devices and names that climb are refused,
because a loader that trusts them reads or writes elsewhere. Sizes are bounded, as compressed tars inflate.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits
from pose_rft.io.paths import inside

FREE, SMALLEST = 10_000, 100  # members that any archive may have, and bytes of the archive for each more: pictures do
# not compress, but a gigabyte of empty members takes a megabyte
LARGEST_MEMBER = 1 << 28  # bytes; a picture or a list of people is far below


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of a tar (plain, gzip, bzip2 or xz) in its order; directories are passed over.

    Raises:
        PoseRftError: no such file, no tar, damaged, a member that is no plain file, whose name leaves the archive, or
            that is absurdly large.
    """
    try:
        most = FREE + door.check_file(path) // SMALLEST
        with door.open_file(path) as file, tarfile.open(fileobj=file) as tar:
            while (member := _next(tar, path)) is not None:
                if (most := most - 1) < 0:
                    raise PoseRftError(f"{path} holds more members than a file of its size can; download it again.")
                if not member.isdir():
                    yield member.name, _content(tar, member, path)
    except PoseRftError:
        raise
    except Exception as error:  # tarfile lets errors of zlib, lzma and of its own header parser through
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not a readable tar ({cause}); download it again.") from None


def _next(tar: tarfile.TarFile, path: Path) -> tarfile.TarInfo | None:
    # Bounded step by step: what happens between two members is the caller's business.
    with limits.bounded(path):
        return tar.next()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    inside(path, member.name)
    if not member.isfile():
        raise PoseRftError(f"{path}: {member.name!r:.80} is a link or a device, expected a plain file.")
    if member.size > LARGEST_MEMBER:
        raise PoseRftError(f"{path}: {member.name!r:.80} declares {member.size} bytes; download it again.")
    with limits.bounded(path):
        file = tar.extractfile(member)
        assert file is not None
        content = file.read()
    if len(content) != member.size:
        raise PoseRftError(f"{path} is cut inside {member.name!r:.80}; download it again.")
    return content
