"""Any run, finished or killed, in a fresh process or notebook: `recover()` finds it and reports what it found."""

from trainhooks.host.extra import missing

try:
    from trainhooks.recovery.recover import recover
    from trainhooks.recovery.recovered import Recovered
except ImportError as error:
    raise missing(error, "recover()") from error

__all__ = ["Recovered", "recover"]
