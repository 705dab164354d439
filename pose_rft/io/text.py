"""Is a string text? JSON and file names may carry halves of UTF-16 pairs (`\\ud83d`), which no UTF-8 file can hold."""

from pose_rft.errors import PoseRftError


class InvalidText(PoseRftError):
    """A string that cannot be stored as UTF-8; the sample that carries it is a defect."""


def is_text(value: str) -> bool:
    """Whether UTF-8 can hold the string."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
