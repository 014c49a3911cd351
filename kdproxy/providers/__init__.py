"""Dialects of the wire: where model, stream flag, usage and completeness sit. Pure."""
