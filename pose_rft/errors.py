"""The one error class that reaches people.

Everything that a user can cause or fix (a missing file, a bad row, an unknown key, a non-finite loss) is raised as
`PoseRftError` with one sentence: which file or value, what was expected, what to do. Entry points print that sentence
and exit with a non-zero status; any other exception is a bug of the project and keeps its traceback.
"""


class PoseRftError(Exception):
    """A problem that the user can act on; its text is one complete sentence on one line.

    Names of files and rows in it are foreign: a newline in one would begin a log line of its own, and a terminal would
    obey its escape codes. They are written out.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(visible(sentence))


def visible(text: str) -> str:
    """The text with what would not be seen (newlines, escape codes, halves of UTF-16 pairs) written out, as `\\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\xa0" else c.encode("unicode_escape").decode() for c in text)
