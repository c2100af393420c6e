"""A detector as other exporters write it: every size is worked out by tensors, of the shape of its images."""

from __future__ import annotations

import onnx

SIDE = 8
TEXT = """
<ir_version: 9, opset_import: ["" : 20]>
detector (float[N, 3, 8, 8] image) => (float[N, 64, 2] scores, float[N, 64, 4] boxes, float[N, 3, 4, 4] small)
<int64[1] at0 = {0}, int64[1] at1 = {1}, int64[1] at2 = {2}, int64[1] three = {3}, int64[1] rest = {-1},
 int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[2] square = {8, 8}, int64[3] column = {1, 64, 1},
 int64[1] cells = {64}, int64[1] end = {9223372036854775807}, float half = {0.5}, int64[1] minus = {-1}>
{
  shape = Shape(image)
  count = Slice(shape, at0, at1, at0)
  flat = Concat<axis = 0>(count, three, rest)
  pixels = Reshape(image, flat)
  lines = Transpose<perm = [0, 2, 1]>(pixels)
  height = Gather<axis = 0>(shape, two)
  places = Range(zero, height, one)
  numbers = Cast<to = 1>(places)
  across = Expand(numbers, square)
  grid = Reshape(across, column)
  every = Concat<axis = 0>(count, cells, at1)
  offsets = Expand(grid, every)
  first = Slice(lines, at0, at1, at2)
  left = Add(first, offsets)
  more = Slice(lines, at1, at2, at2)
  right = Add(left, more)
  boxes = Concat<axis = 2>(left, left, right, right)
  tail = Slice(lines, at1, end, at2)
  scores = Sigmoid(tail)
  sides = Slice(shape, at2, end, at0)
  halves = Div(sides, at2)
  smaller = Concat<axis = 0>(count, three, halves)
  small = Resize<mode = "nearest">(image, , , smaller)
}
"""


def shape_graph() -> onnx.ModelProto:
    """``scores`` [N, 64, 2] and ``boxes`` [N, 64, 4] in pixels of images [N, 3, 8, 8], and these at half the size."""
    model = onnx.parser.parse_model(TEXT)
    onnx.checker.check_model(model)
    return model
