"""Images with plans of different length share every UNet call: nobody waits for the slowest."""

from collections import Counter

import edgepure

digits = edgepure.demo_images()
preset = "heterogeneous-ssni"  # SSNI: every image gets the noise level that its score norm asks for

with edgepure.load(edgepure.demo_bundle(), slots=8) as purifier:
    images = [*digits.clean[:32], *digits.adversarial[32:]]
    finished: list[str] = []
    results = purifier.purify(images, preset, noise=3, on_progress=lambda share, words: finished.append(words))
    print(f"{finished[-1]} finished")

    calls = Counter(r.unet_calls for r in results)
    print("UNet calls, probe included:", ", ".join(f"{n} images took {c}" for c, n in sorted(calls.items())))

    # A tick is one call of the step graph; it executes one row of every slot that holds an image.
    counters = purifier.counters
    busy = counters.rows / (counters.ticks * purifier.slots)
    print(f"{counters.rows} rows in {counters.ticks} ticks of 8 slots: {100 * busy:.0f} % of the slots were busy")
