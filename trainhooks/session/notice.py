"""Lines that a user should see once whether or not logging is set up."""

import logging
import sys

log = logging.getLogger("trainhooks")


def say(line: object) -> None:
    """Log a line at level INFO; where nobody has set up logging, which shows warnings alone, write it to stderr."""
    if not log.hasHandlers():
        sys.stderr.write(f"\n{line}\n")  # a progress bar may be on the current line
    log.info("%s", line)
