import signal

from .output import emit_json as emit_json
from .output import note as note
from .output import say as say
from .output import size as size
from .output import table as table
from .output import verdict as verdict
from .progress import Progress as Progress
from .progress import duration as duration

INTERRUPTED: str
ENDING: tuple[signal.Signals, ...]

def main() -> None: ...
