"""Files: the journal that is the truth and the stores that index it."""
