"""Callbacks for trainers that own the loop. Each imports its trainer lazily."""
