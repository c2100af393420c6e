"""The table of ONNX's own operators that the runtime checks strangers' graphs with (`edgepure.engines.schema`).

``python -m edgepure_export.graphs.operator_table > runtime/edgepure/engines/operators.txt`` renews it.
"""

from __future__ import annotations

from onnx import defs

#: Letters of the attribute types in the table.
LETTERS = {
    "FLOAT": "f",
    "INT": "i",
    "STRING": "s",
    "TENSOR": "t",
    "GRAPH": "g",
    "FLOATS": "F",
    "INTS": "I",
    "STRINGS": "S",
}
#: More inputs or outputs than any graph has: variadic.
_MANY = 2**31 - 1


def table() -> str:
    """One line an operator, over all versions of it: name, inputs, outputs, attributes with their types."""
    rows: dict[str, list[object]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain:
            continue
        counts = [schema.min_input, schema.max_input, schema.min_output, schema.max_output]
        row = rows.setdefault(schema.name, [*counts, {}])
        for index, choose in enumerate((min, max, min, max)):
            row[index] = choose(row[index], counts[index])  # type: ignore[call-overload]
        for name, attribute in schema.attributes.items():
            letter = LETTERS.get(str(attribute.type).rpartition(".")[2])
            if letter is not None:
                row[4].setdefault(name, set()).add(letter)  # type: ignore[attr-defined]
    lines = []
    for name, (low, high, least, most, attributes) in sorted(rows.items()):
        sides = [f"{a}-{'*' if b == _MANY else b}" for a, b in ((low, high), (least, most))]
        words = [f"{key}:{''.join(sorted(found))}" for key, found in sorted(attributes.items())]  # type: ignore[attr-defined]
        lines.append(" ".join([name, *sides, *words]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
