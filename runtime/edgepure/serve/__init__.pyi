from .server import serve as serve
from .settings import ModelSettings as ModelSettings
from .settings import ServeSettings as ServeSettings
from .settings import parse_model as parse_model
from .triton_repository import write_triton_repository as write_triton_repository
