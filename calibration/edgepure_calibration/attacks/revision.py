"""Which attacks made a result that is kept: here because it is asked where PyTorch may be missing."""

#: Counted up when the algorithms of this folder compute something else, so that what an interrupted run has kept of the
#: former ones is not taken up again. An attack of another package counts its own `Attack.revision`.
ATTACK_REVISION = 2
