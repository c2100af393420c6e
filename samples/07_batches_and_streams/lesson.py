"""Images with plans of different length share every UNet call: nobody waits for the slowest."""

from collections import Counter

import edgepure
from edgepure.demo import demo_bundle, demo_images

digits = demo_images()

with edgepure.load(demo_bundle(), slots=8) as purifier:
    preset = "heterogeneous-ssni"  # SSNI: every image gets the noise level that its score norm asks for
    finished: list[int] = []
    results = purifier.purify(digits.adversarial, preset, noise=3, on_progress=lambda done, of: finished.append(done))
    print(f"{finished[-1]} images finished")

    probe = purifier.planner.probe(purifier.preset(preset))
    assert probe is not None
    lengths = Counter(r.unet_calls - probe.unet_calls for r in results)
    print("rows of the plans:", ", ".join(f"{n} images with {rows}" for rows, n in sorted(lengths.items())))

    counters = purifier.counters
    occupancy = counters.rows / (counters.ticks * purifier.slots)
    print(
        f"{counters.rows} rows in {counters.ticks} calls of the step graph: {100 * occupancy:.0f} % of the slots were busy"
    )
