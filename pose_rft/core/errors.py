"""The one error class that reaches people.

Everything that a user can cause or mend (a missing file, a bad row, an unknown key, a non-finite loss) is raised as
`PoseRftError` with one sentence: which file or value, what was expected, what to do. Entry points print that sentence
and exit with a non-zero status; any other exception is a bug of the project and keeps its traceback.
"""


class PoseRftError(Exception):
    """A problem that the user can act on; its text is one complete sentence."""
