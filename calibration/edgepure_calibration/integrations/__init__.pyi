from .art_preprocessor import PurificationPreprocessor as PurificationPreprocessor
from .blackbox import BlackBox as BlackBox
from .purified_classifier import PurifiedClassifier as PurifiedClassifier
