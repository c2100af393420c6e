from .noise_batches import RecordedNoise as RecordedNoise
from .noise_batches import SourceNoise as SourceNoise
from .noise_batches import draw_noise as draw_noise
from .onnx_module import OnnxModule as OnnxModule
from .reference import Purification as Purification
from .reference import TorchReference as TorchReference
from .twin import load_twin as load_twin
