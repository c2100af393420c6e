"""How far a deployment is from its reference, at four levels: graphs, rows, images, decisions.

`edgepure.parity.verify.verify` puts the parts together.
"""
