from .data import DemoImages as DemoImages
from .data import demo_bundle as demo_bundle
from .data import demo_images as demo_images
from .run import run_demo as run_demo
