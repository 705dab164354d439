"""`stamp.json`: what later stages see of the sample; always written.

If the sample was built, the stamp holds a digest of all file contents, so a stage that depends on the stamp depends on
the sample. If the user supplies the real releases, it only records that.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

STAMP = "stamp.json"


def stamp(source: Literal["sample", "releases"], seed: int, folder: Path | None = None) -> dict[str, Any]:
    """Returns the content of the stamp; `folder` is the finished sample without its stamp."""
    content: dict[str, Any] = {"source": source, "seed": seed}
    if folder is None:
        return content
    digest, count, size = hashlib.sha256(), 0, 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(data)}\0".encode())
        digest.update(hashlib.sha256(data).digest())
        count, size = count + 1, size + len(data)
    return {**content, "files": count, "bytes": size, "digest": digest.hexdigest()}
