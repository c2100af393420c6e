from .resolve import resolve_classifier as resolve_classifier
from .resolve import resolve_diffusion as resolve_diffusion
