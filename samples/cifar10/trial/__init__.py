"""An attackable, repeatable trial of heterogeneous purification and SSNI on CIFAR-10; see README.md."""
