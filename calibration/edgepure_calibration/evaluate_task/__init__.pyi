from .attack import TaskAttack as TaskAttack
from .losses import Loss as Loss
from .losses import load_loss as load_loss
from .run import TaskEvaluated as TaskEvaluated
from .run import evaluate_task as evaluate_task
