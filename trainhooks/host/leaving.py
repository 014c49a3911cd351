"""How a loop over one of our generators was left: by `break` or `return`, or by an error.

Both close the generator with GeneratorExit, and the error is not shown to it. What tells is where the loop's frame
stands: `break` and `return` take the iterator off the stack with an instruction of its own, an error does so from
wherever it was raised.
"""

import inspect
import opcode
import sys
from types import FrameType

_TAKES_OFF = frozenset({"POP_TOP", "POP_ITER", "END_FOR"})
_SUSPENDED = frozenset({"YIELD_VALUE", "RESUME", "SEND"})


def is_broken_off() -> bool:
    """In a generator that is being closed: whether the step that it gave last was broken off.

    So it was by an error, or it cannot be told: the generator outlived its loop in a variable.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _is_waiting(frame):  # a generator between the loop and ours, such as a progress bar's
        frame = frame.f_back
    return frame is not None and _instruction(frame) not in _TAKES_OFF


def _is_waiting(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_GENERATOR) and _instruction(frame) in _SUSPENDED


def _instruction(frame: FrameType) -> str:
    return opcode.opname[frame.f_code.co_code[frame.f_lasti]]
