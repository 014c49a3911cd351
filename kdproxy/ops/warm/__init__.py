"""`warm`: reads records of any known format from files into the archive."""
