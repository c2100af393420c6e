"""What is true of images, for tasks: classes of pixels, boxes, whose vector is whose; and mIoU, mAP and recall at 1."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
