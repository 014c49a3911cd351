"""Turns a missing import into an error that names the extra to install."""

import importlib

from trainhooks.errors import ExtraMissing

TRAIN = frozenset({"torch", "numpy", "safetensors"})
NOTEBOOK = frozenset({"pandas", "matplotlib", "pyarrow"})


def missing(error: ImportError, what: str) -> ImportError:
    """Return the error to raise for a failed import that `what` needs; the same error for any other module."""
    module = (error.name or "").partition(".")[0]
    if module not in TRAIN | NOTEBOOK:
        return error
    extra = "train" if module in TRAIN and what not in ("recover()", "this command") else "notebook"
    return ExtraMissing(
        f"{what} needs {module}, which is not installed here.",
        hint=f'pip install {module}, or kdproxy with its extra "{extra}" (docs/install.md)',
    )


def require(what: str, *modules: str) -> None:
    """Import them.

    Raises:
        ExtraMissing: one is not installed; the hint says how to install it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise missing(ImportError(str(error), name=module), what) from error
