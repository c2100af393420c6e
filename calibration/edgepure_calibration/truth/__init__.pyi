from .data import Truth as Truth
from .data import load_data as load_data
from .data import load_truth as load_truth
from .metrics import Score as Score
from .metrics import mean_average_precision as mean_average_precision
from .metrics import mean_iou as mean_iou
from .metrics import recall_at_1 as recall_at_1
