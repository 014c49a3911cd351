"""Why a line of a file to warm from is not taken."""


class RowUnusable(Exception):
    """A line cannot answer anything; the text says why."""


class RowFailed(RowUnusable):
    """The provider did not answer this request: nothing to keep, and nothing wrong with the file."""


class RowUnpaired(RowUnusable):
    """A line is half of a Batch pair whose other half is in none of the files."""


class RowUnreadable(RowUnusable):
    """A line is no JSON. If it is a file's last and has no line break, the file was cut there."""
