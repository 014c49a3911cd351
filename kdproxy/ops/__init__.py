"""Jobs that the CLI and the admin API share: warm, export, verify, stats, forget."""
