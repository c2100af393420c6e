"""Which attacks made a result that is kept: here because it is asked where PyTorch may be missing."""

#: Counted up when an attack of `edgepure_calibration.attacks` computes something else, so that what an interrupted run
#: has kept of the former one is not taken up again.
ATTACK_REVISION = 2
