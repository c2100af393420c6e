"""From PyTorch networks to a bundle: graphs, the differentiable reference, the bundle writer.

Needs PyTorch and runs on a workstation (`pip install edgepure[export]`). It builds on the runtime package
`edgepure`, which never imports this one.
"""
