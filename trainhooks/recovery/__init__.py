"""Any run, finished or killed, in a fresh process or notebook: `recover()` finds it and says what it found."""

from trainhooks.recovery.recover import recover
from trainhooks.recovery.recovered import Recovered

__all__ = ["Recovered", "recover"]
