from .atomic import atomic_file as atomic_file
from .atomic import write_bytes as write_bytes
from .atomic import write_json as write_json
from .atomic import write_npz as write_npz
from .atomic import write_text as write_text
from .folders import atomic_directory as atomic_directory
from .locks import locked as locked
from .npz import Npz as Npz
