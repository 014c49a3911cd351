"""`warm`: records of any known format read from files, and put into the archive."""
