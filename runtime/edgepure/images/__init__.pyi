from .dataset import LabelledImages as LabelledImages
from .dataset import load_labelled as load_labelled
from .load import ImageFailure as ImageFailure
from .load import LoadedImages as LoadedImages
from .load import load_images as load_images
from .save import save_image as save_image
from .spec import ImageSpec as ImageSpec
