"""The one error class whose messages users see.

Everything that a user can cause or fix (a missing file, a bad row, an unknown key, a non-finite loss) is raised as
`PoseRftError` with one sentence: which file or value, what was expected, what to do. Entry points print that sentence
and exit with a non-zero status; any other exception is a bug in the project and keeps its traceback.
"""


class PoseRftError(Exception):
    """An error that the user can act on; its message is one complete sentence on one line.

    File and row names in the message are untrusted: a newline would start a new log line, and a terminal would obey
    escape codes. Such characters are escaped.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(visible(sentence))


def visible(text: str) -> str:
    """Returns the text with non-printable characters (newlines, escape codes, lone surrogates) escaped, as `\\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\xa0" else c.encode("unicode_escape").decode() for c in text)
