"""How much memory a file of a release may ask for: a 100-byte file that declares terabytes is refused, not obeyed.

Formats declare the shape of their arrays before the numbers come, and compressed ones inflate a thousandfold; parsers
believe both. Inside `bounded` the process may take a fixed amount plus a multiple of the file's size, and what asks
for more gets a MemoryError at once, before a page is touched. The limit is the kernel's (RLIMIT_DATA), so it holds in
every C library as well; systems without it rely on the parsers' own checks.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pose_rft.core.errors import PoseRftError

FIXED = 1 << 28  # bytes, whatever the file's size
PER_BYTE = 40  # JSON of empty dicts, the widest of honest contents, takes 24 bytes for each of its own


@contextmanager
def bounded(where: Path | str, size: int | None = None) -> Iterator[None]:
    """Bounds what the block may allocate, which parses the file `where` (or `size` bytes that came from there).

    Raises:
        PoseRftError: it asked for more, or nested deeper than Python can follow.
    """
    if size is None:
        size = Path(where).stat().st_size if Path(where).is_file() else 0
    try:
        with _data_limit(FIXED + PER_BYTE * size):
            yield
    except MemoryError:
        raise PoseRftError(
            f"{where} has {size} bytes but asks for more than {(FIXED + PER_BYTE * size) >> 20} MiB of memory, so it "
            "is damaged or hostile; download it again."
        ) from None
    except RecursionError:
        raise PoseRftError(f"{where} is nested deeper than any file of a release; download it again.") from None


@contextmanager
def _data_limit(extra: int) -> Iterator[None]:
    """Lets this process allocate `extra` bytes more than it has now."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    now = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    limit = now + extra
    if any(other != resource.RLIM_INFINITY and other < limit for other in (soft, hard)):
        yield  # a stricter limit is in force already, perhaps that of an outer block
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
