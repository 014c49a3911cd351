"""Says which extra of the package brings what is not installed: one place where a missing import becomes a sentence."""

import importlib

from trainhooks.errors import ExtraMissing

TRAIN = frozenset({"torch", "numpy", "safetensors"})
NOTEBOOK = frozenset({"pandas", "matplotlib", "pyarrow"})


def missing(error: ImportError, what: str) -> ImportError:
    """Return the error to raise in place of one of an import that `what` needs; the same one for any other module."""
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
        ExtraMissing: one is not installed; says how.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise missing(ImportError(str(error), name=module), what) from error
