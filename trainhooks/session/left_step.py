"""What becomes of a step that its loop was left in: it counts, or it does not and its batch is given again.

A step counts if the loop ended it without an error. Where nothing shows how the loop ended, it counts if it has left
something behind: a recorded row, or an optimizer's step. So a checkpoint never counts a step whose update it lacks.
"""

import logging

from trainhooks.host.unwinding import Left

log = logging.getLogger("trainhooks")


def counts(step: int, left: Left, *, is_dropped: bool, is_untouched: bool, has_stepped: bool) -> bool:
    """Return whether it counts, and log it where the loop may have meant something else.

    Args:
        left: how the loop was left.
        is_dropped: a wrapper such as `zip` took its batch and no loop saw it.
        is_untouched: no row of it was recorded, and no optimizer has stepped.
        has_stepped: an optimizer has.
    """
    if is_dropped:
        log.info("step %d was given to no loop: it is not counted, and its batch comes again", step)
        return False
    if left is Left.BY_ITSELF:
        return True
    if left is Left.UNKNOWN:
        if is_untouched:
            log.warning(
                "the loop was left in step %d before a row was recorded or an optimizer stepped: it does not count, and"
                " its batch is given again",
                step,
            )
        return not is_untouched
    if has_stepped:
        log.warning(
            "an error broke off step %d after its optimizer had stepped: it counts, since the update is in the state;"
            " what the loop does after that was not done",
            step,
        )
        return True
    log.warning(
        "an error broke off step %d before an optimizer stepped: it does not count, and its batch is given again", step
    )
    return False
