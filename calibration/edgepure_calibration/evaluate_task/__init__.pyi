from .attack import TaskAttack as TaskAttack
from .card import write_card as write_card
from .losses import Loss as Loss
from .losses import load_loss as load_loss
from .report import write_report as write_report
from .run import TaskEvaluated as TaskEvaluated
from .run import evaluate_task as evaluate_task
