"""Tar archives of releases, read member by member in memory: nothing is unpacked, no name becomes a path.

Only plain files with plain relative names are accepted. Links, devices and names with `..` are rejected, because a
loader that trusts them reads or writes elsewhere. Sizes are bounded, because compressed tars inflate.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits
from pose_rft.io.paths import inside

FREE, SMALLEST = 10_000, 100  # members that any archive may have, and archive bytes required for each further one:
# images do not compress, but a gigabyte of empty members takes a megabyte
LARGEST_MEMBER = 1 << 28  # bytes; an image or a list of people is far smaller


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of every file of a tar (plain, gzip, bzip2 or xz) in order; directories are skipped.

    Raises:
        PoseRftError: no such file, not a tar, damaged, or a member that is not a plain file, is far too large, or has
            a name that leaves the archive.
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
    except Exception as error:  # tarfile does not wrap errors of zlib, lzma and its header parser
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise PoseRftError(f"{path} is not a readable tar ({cause}); download it again.") from None


def _next(tar: tarfile.TarFile, path: Path) -> tarfile.TarInfo | None:
    # Each step is bounded separately: the limits must not apply to what the caller does between two members.
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
