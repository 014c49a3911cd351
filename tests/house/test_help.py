"""`help()` of both packages is a table of contents."""

import inspect

import kdproxy
import trainhooks
from kdproxy.cli.main import main


def test_help_of_trainhooks_names_every_public_name() -> None:
    text = inspect.getdoc(trainhooks)
    assert text is not None
    assert [name for name in trainhooks.__all__ if name not in text] == []


def test_help_of_kdproxy_names_every_command() -> None:
    text = inspect.getdoc(kdproxy)
    assert text is not None
    assert [name for name in main.commands if name not in text] == []
