"""`edgepure serve` for hours among clients and faults; `__main__` says how, and what is held."""
