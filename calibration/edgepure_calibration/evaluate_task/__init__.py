"""Attacks on tasks: PGD on the task's own loss, through the purification too; counted in mIoU, mAP or recall at 1."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
