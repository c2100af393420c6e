"""Purification as a table of rows: schedules, time grids, plans, noise, and how a row is computed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
