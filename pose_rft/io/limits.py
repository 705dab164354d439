"""Limits the memory and time that parsing a file may take: a 100-byte file that declares terabytes is rejected.

Formats declare the shape of their arrays before the data, and compressed ones inflate a thousandfold; parsers trust
both. Inside `bounded` the process may allocate a fixed amount plus a multiple of the file's size; an allocation beyond
that gets a MemoryError at once, before a page is touched. The kernel enforces the limit (RLIMIT_DATA), so it holds in
every C library as well; systems without it rely on the parsers' own checks. Time is CPU time, not wall time: a slow
disk may take as long as it likes. The timer cannot interrupt a single call into a C library; such calls are bounded by
the size of their input only.

Both limits apply in the main thread only, where readers run. They are process-wide, so a parsing thread would limit the
allocations of a training loop beside it, and overlapping threads would leave one limit in force for good.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pose_rft.errors import PoseRftError

FIXED = 1 << 28  # bytes, whatever the file's size
PER_BYTE = 40  # JSON of empty dicts, which expands most of all legitimate content, takes 24 bytes per byte of file
SECONDS, SECONDS_PER_BYTE = 15.0, 4e-6  # the slowest legitimate file (MPII's MATLAB structs) takes a quarter of that


@contextmanager
def bounded(where: Path | str, size: int | None = None) -> Iterator[None]:
    """Limits the memory and CPU time of the block, which parses the file `where` (or `size` bytes of it).

    Raises:
        PoseRftError: the block exceeded a limit, or the content nests deeper than Python can recurse.
    """
    if size is None:
        try:
            size = Path(where).stat().st_size
        except (OSError, ValueError):  # opening the file will report this
            size = 0
    try:
        with _data_limit(FIXED + PER_BYTE * size), _time_limit(where, SECONDS + SECONDS_PER_BYTE * size):
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
    """Lets this process allocate at most `extra` bytes more than it has now."""
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    now = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    limit = now + extra
    if any(other != resource.RLIM_INFINITY and other < limit for other in (soft, hard)):
        yield  # a stricter limit is already in force, perhaps that of an outer block
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def _time_limit(where: Path | str, seconds: float) -> Iterator[None]:
    """Ends the block once this process has used `seconds` of CPU time in it."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield  # the timer of an outer block is in force
        return

    def stop(*_: object) -> None:
        raise PoseRftError(f"{where} takes more than {seconds:.0f} s to read, so it is damaged or hostile.")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)  # repeats, in case a library swallows the error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
