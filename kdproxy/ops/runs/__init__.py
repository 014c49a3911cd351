"""Runs: listing them, showing one, and changing one."""
