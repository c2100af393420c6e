"""Throws damaged and hostile inputs at everything that reads what strangers made: ``make fuzz``.

An input may be taken or refused with an error of edgepure's own. Anything else is a fault: another exception, a hang,
a process that ends, a file that nobody asked for, memory beyond all measure. Input number N of a kind depends on the
seed, the kind and N alone, so each fault can be had again.
"""
