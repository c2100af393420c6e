"""A purification is a table of rows, one UNet call each. Read it before you pay for it."""

import edgepure

with edgepure.load(edgepure.demo_bundle()) as purifier:
    for name in sorted(purifier.presets):
        print(f"{name:24} {purifier.plan(name).unet_calls} UNet calls a purification")

    plan = purifier.plan("heterogeneous")
    print(f"\n{plan.method}, noise levels {dict(plan.levels)}")
    for number, row in enumerate(plan.rows, start=1):
        to = "clean" if row.next_level < 0 else f"{row.next_level:.0f}"
        noise = f"new noise inside the mask {row.std(1):.2f}, outside {row.std(0):.2f}"
        print(f"{number}: {row.stage:8} t = {row.t:3.0f} -> {to:5}  {noise}")

    # A noise level that cannot be is refused here, before any image is touched.
    try:
        purifier.plan({"method": {"method": "uniform", "t_star": 2000}})
    except edgepure.EdgepureError as error:
        print(f"\nrefused: {error}")
