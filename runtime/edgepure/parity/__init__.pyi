from .side_by_side import ImageSet as ImageSet
from .verification import Verification as Verification
from .verify import verify as verify
from .verify import verify_engines as verify_engines
