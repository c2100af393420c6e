from .from_sources import ExportedBundle as ExportedBundle
from .from_sources import export_from_sources as export_from_sources
from .recordings import record_pipelines as record_pipelines
from .tasks import Task as Task
from .writer import export_bundle as export_bundle
