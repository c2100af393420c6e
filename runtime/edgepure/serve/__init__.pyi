from .server import serve as serve
from .settings import ModelSettings as ModelSettings
from .settings import ServeSettings as ServeSettings
from .settings import parse_model as parse_model
