"""The reasons why `warm` does not take a line."""


class RowUnusable(Exception):
    """A line cannot be used; the text says why."""


class RowFailed(RowUnusable):
    """The provider did not answer this request: there is no answer to store, and the file is correct."""


class RowUnpaired(RowUnusable):
    """A line is half of a Batch pair, and no file has its other half."""


class RowUnreadable(RowUnusable):
    """A line is not JSON. If it is the last line and has no line break, the file was cut off there."""
