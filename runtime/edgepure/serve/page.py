"""The page at ``/``: a person drops an image and sees what the defence does with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.load import load_images
from ..purify.results import Purified, Result
from ..purify.tasks import Detection, Embedding, Segmentation
from ..report.answers import outlines
from ..report.pictures import Picture
from .models import Model

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>edgepure</title><style>
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1rem}
label.drop{display:block;border:2px dashed currentColor;border-radius:.5rem;padding:2rem;text-align:center}
label.drop.over{opacity:.5}
#answer{font-size:1.4rem;font-weight:600;min-height:2.2rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:1rem}
figure{margin:0}img{width:100%;image-rendering:pixelated;border-radius:.25rem;background:#8884}
input[type=password],select{font:inherit}
</style></head><body><main>
<h1>edgepure</h1>
<p>Model <select id="model" aria-label="model"></select>
<span id="secret" hidden>token <input id="token" type="password" aria-label="token" autocomplete="off"></span></p>
<label class="drop" id="drop">Drop an image here, or choose one
<input id="file" type="file" accept="image/*" hidden></label>
<p id="answer" role="status"></p><div class="pictures" id="pictures"></div>
<script>
const at = id => document.getElementById(id);
const headers = () => at('token').value ? {Authorization: 'Bearer ' + at('token').value} : {};
async function models() {
  const answer = await fetch('v2/repository/index', {method: 'POST', headers: headers()});
  if (answer.status === 401) { at('secret').hidden = false; return; }
  at('model').replaceChildren(...[...new Set((await answer.json()).map(m => m.name))].map(name => new Option(name)));
}
async function send(file) {
  at('answer').textContent = 'purifying ...'; at('pictures').replaceChildren();
  const path = 'v2/models/' + encodeURIComponent(at('model').value) + '/pictures';
  const answer = await fetch(path, {method: 'POST', body: file, headers: headers()});
  const found = await answer.json();
  if (!answer.ok) { at('answer').textContent = found.error; return; }
  at('answer').textContent = found.answer;
  for (const [words, uri] of Object.entries(found.pictures)) {
    const make = name => document.createElement(name);
    const figure = make('figure'), image = make('img'), caption = make('figcaption');
    image.src = uri; image.alt = words; caption.textContent = words; figure.append(image, caption);
    at('pictures').append(figure);
  }
}
at('file').onchange = event => event.target.files[0] && send(event.target.files[0]);
at('token').onchange = models;
for (const kind of ['dragover', 'dragleave', 'drop'])
  at('drop').addEventListener(kind, event => {
    event.preventDefault(); at('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop' && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
models();
</script></main></body></html>
"""


def pictures(model: Model, data: bytes, result: Purified) -> dict[str, Any]:
    """What the page shows of one image: the answer in words, and pictures as data URIs."""
    image = load_images(data, model.purifier.bundle.manifest.task_image, resize=True).images[0]
    found = {"as it came": Picture(image, "as it came").uri}
    if result.mask is not None:
        found["mask: strong noise there"] = Picture(image, "mask", mask=result.mask).uri
    found["purified"] = Picture(result.image, "purified").uri
    words, inside = _answer(model, result)
    if inside is not None:
        found["what was found"] = Picture(result.image, "found", mask=inside).uri
    return {"answer": words, "pictures": found}


def _answer(model: Model, result: Purified) -> tuple[str, NDArray[np.bool_] | None]:
    """In words, and the pixels ``[H, W]`` that they are about."""
    if isinstance(result, Detection):
        inside = outlines(result.boxes, (result.image.shape[1], result.image.shape[2]))
        names = [f"{name} ({score:.0%})" for name, score in zip(result.class_names, result.scores, strict=True)]
        return ", ".join(names) or "nothing was found", inside
    if isinstance(result, Segmentation):
        most = max(result.shares, key=lambda name: result.shares[name])
        shares = sorted(result.shares.items(), key=lambda item: -item[1])
        words = ", ".join(f"{name} ({share:.0%})" for name, share in shares)
        return words, result.label_map != model.classes.index(most)
    if isinstance(result, Embedding):
        return f"a vector of {len(result.vector)} numbers", None
    assert isinstance(result, Result)
    plain = "" if result.plain_label is None else model.classes[result.plain_label]
    words = f"{result.class_name} ({result.probabilities[result.label]:.0%})"
    if plain and plain != result.class_name:
        words += f"; without purification it would be {plain}"
    return words, None
