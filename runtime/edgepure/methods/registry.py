"""The list of methods: edgepure's own, and those of the entry-point group ``edgepure.methods``.

A package adds a method by one file and one line of its pyproject.toml::

    [project.entry-points."edgepure.methods"]
    mine = "my_package.mine:MineSpec"
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from ..errors import import_fault
from ..machine.packages import extensions
from .gdmp import GdmpSpec
from .gnsp import GnspSpec
from .heterogeneous import HeterogeneousSpec
from .repaint import RepaintSpec
from .smooth import SmoothSpec
from .spec import MethodSpec
from .split import SplitSpec
from .uniform import UniformSpec

GROUP = "edgepure.methods"
BUILT_IN: tuple[type[MethodSpec], ...] = (
    UniformSpec,
    HeterogeneousSpec,
    RepaintSpec,
    GdmpSpec,
    GnspSpec,
    SmoothSpec,
    SplitSpec,
)


@cache
def methods() -> Mapping[str, type[MethodSpec]]:
    """Every purification method by the name that its presets carry as ``method``: edgepure's own come first.

    A package whose method cannot be used is told in a warning and left out, so that it spoils nothing but its own
    presets: those fail with the list of the methods that there are.
    """
    found = {str(spec.model_fields["method"].default): spec for spec in BUILT_IN}
    for name, point in extensions(GROUP).items():
        try:
            spec = point.load()
        except Exception as error:  # whatever the foreign module does when it is imported
            _leave_out(name, point.value, import_fault(point.module, error))
            continue
        if not (isinstance(spec, type) and issubclass(spec, MethodSpec)):
            _leave_out(name, point.value, "it is no subclass of edgepure.methods.MethodSpec")
        elif spec.model_fields["method"].default != name:
            _leave_out(name, point.value, f'it needs the field `method: Literal["{name}"] = "{name}"`')
        elif name in found:
            _leave_out(name, point.value, "edgepure has a method of that name")
        else:
            found[name] = spec
    return found


def _leave_out(name: str, value: str, why: str) -> None:
    warnings.warn(f"the method {name!r} of {value} is left out: {why}", stacklevel=3)


class _ByMethod:
    """Makes pydantic read a `MethodSpec` as the union of all methods, told apart by their key ``method``.

    The union is made when a model that holds one is first used, not at import: then a foreign method's file may import
    whatever it likes of edgepure.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        union: Any = reduce(or_, methods().values())
        return handler.generate_schema(Annotated[union, Field(discriminator="method")])


#: Any purification method, told apart by its key ``method``.
AnyMethod = Annotated[MethodSpec, _ByMethod()]
