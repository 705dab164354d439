"""`stamp.json`: what later stages see of the sample, written in every case.

With a sample it holds a digest of all files' contents, so that whoever depends on the stamp depends on the sample;
with the user's own releases it only says so.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

STAMP = "stamp.json"


def stamp(source: Literal["sample", "releases"], seed: int, folder: Path | None = None) -> dict[str, Any]:
    """Content of the stamp; `folder`: the finished sample, without its stamp."""
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
