"""How much memory and time a file may ask for: a 100-byte file that declares terabytes is refused, not obeyed.

Formats declare the shape of their arrays before the numbers come, and compressed ones inflate a thousandfold; parsers
believe both. Inside `bounded` the process may take a fixed amount plus a multiple of the file's size, and what asks
for more gets a MemoryError at once, before a page is touched. The limit is the kernel's (RLIMIT_DATA), so it holds in
every C library as well; systems without it rely on the parsers' own checks. Time is the processor's, not the clock's: a
slow disk may take as long as it likes. What a C library does in one call ends before the watch strikes, so such calls
are bounded by what they are given.

Both hold in the main thread, where readers run, and in no other: they are the whole process's, so a thread that parses
would bound what the training beside it allocates, and two that overlap would leave one's limit in force for good.
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
PER_BYTE = 40  # JSON of empty dicts, the widest of honest contents, takes 24 bytes for each of its own
SECONDS, SECONDS_PER_BYTE = 15.0, 4e-6  # the densest of honest files (MPII's MATLAB structs) takes a quarter of that


@contextmanager
def bounded(where: Path | str, size: int | None = None) -> Iterator[None]:
    """Bounds what the block may allocate and compute, which parses the file `where` (or `size` bytes from there).

    Raises:
        PoseRftError: it asked for more, or nested deeper than Python can follow.
    """
    if size is None:
        try:
            size = Path(where).stat().st_size
        except (OSError, ValueError):  # whoever opens it says so
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
    """Lets this process allocate `extra` bytes more than it has now."""
    if not sys.platform.startswith("linux") or threading.current_thread() is not threading.main_thread():
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


@contextmanager
def _time_limit(where: Path | str, seconds: float) -> Iterator[None]:
    """Ends the block once this process has computed for so long."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield  # that of an outer block is in force
        return

    def stop(*_: object) -> None:
        raise PoseRftError(f"{where} takes more than {seconds:.0f} s to read, so it is damaged or hostile.")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)  # again, should a library have swallowed the error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
