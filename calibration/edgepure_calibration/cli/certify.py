"""``edgepure certify``: certified accuracy of a data set, on the deployed engine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import BundleArgument, ResizeOption, SeedOption, ShownOptions, given

from .shared import WideOptions, hidden_folder, prepare_work

if TYPE_CHECKING:
    from ..certify import Certified


@grouped
def certify(
    bundle: BundleArgument,
    *,
    data: Annotated[
        str,
        given(
            "DIR|FILE.npz",
            "Labelled images: a sub-folder per class, or an .npz with `images` and `labels`; "
            "FILE.npz:NAME takes another array.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="DIR", help="For certificates.json, report.html and a .tsv for each preset."
        ),
    ] = Path("certificates"),
    sigma: Annotated[
        list[float] | None,
        given(
            None,
            "Denoised smoothing with this noise on images in [0, 1]. May be given several times. Default,"
            " without --preset: 0.25.",
            min=0.001,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="UNet calls of denoised smoothing.")] = 1,
    preset: Annotated[
        list[str] | None,
        given(
            "NAME", "A preset of the bundle that has a certificate, see `edgepure plan`. May be given several times."
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Answers counted for each image; with --radius at most.")] = 10_000,
    n0: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Answers that choose the class before. Default: 100; with --radius 1, and another "
            "class may take its place.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Probability that an image's certificate is wrong, at most.")] = 0.001,
    radius: Annotated[
        float | None,
        given(None, "Stop counting an image as soon as this L2 radius is settled: fewer answers.", min=0.0),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every so-manieth image; papers take 20 on CIFAR-10.")] = 1,
    limit: Annotated[int | None, given(None, "At most so many of them.", min=1)] = None,
    eight_bits: Annotated[
        bool, typer.Option("--eight-bits", help="Round images to 8 bits: certificates are exact, and about those.")
    ] = False,
    carry_to: Annotated[
        str | None,
        given(
            "PRECISION",
            "Carry the certificates to this variant of the bundle too, from --pairs answers of both to the same noise.",
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(min=10, help="Of --carry-to, for each image.")] = 1000,
    card: Annotated[bool, typer.Option("--card/--no-card", help="Put a card of certificates into the bundle.")] = True,
    work: Annotated[
        Path | None,
        given("DIR", "Folder for finished images, kept. Default: a hidden one beside the bundle, removed at the end."),
    ] = None,
    seed: SeedOption = None,
    resize: ResizeOption = False,
    engine: WideOptions,
    shown: ShownOptions,
) -> None:
    """Certify a data set by randomized smoothing: the share of images that are right, and proven right within L2 radii.

    Nothing about the network is assumed, and nothing is covered but the L2 balls that are named. An interrupted run
    goes on where it was when the same command is given again.

    Examples:

    \b
      edgepure certify digits --data test.npz --sigma 0.25 --sigma 0.5 --n 1000
      edgepure certify cifar10 --data test/ --every 20 --sigma 0.25 --radius 0.5 --provider cuda
    """
    from edgepure.bundle.bundle import Bundle
    from edgepure.cli.output import emit_json
    from edgepure.cli.outputs import check_outputs
    from edgepure.cli.presets import choose_preset
    from edgepure.cli.progress import Progress
    from edgepure.purify.certificate import CertifySettings

    from ..certify.files import write_card, write_results
    from ..certify.report import write_report
    from ..certify.run import CertifyRequest, certify_data, presets_of
    from ..provider import ProviderSettings
    from ..work import remove_work_folder

    check_outputs([out / "certificates.json", out / "report.html"], "--out", [data])
    prepare_work(work, data)
    manifest = Bundle.open(bundle, verify=False).manifest
    sigmas = sigma or ([] if preset else [0.25])
    presets = presets_of(sigmas, steps)
    presets |= dict(choose_preset(manifest.presets, manifest.default_preset, name) for name in preset or ())
    request = CertifyRequest(
        presets,
        CertifySettings(n, n0, alpha, radius),
        every=every,
        limit=limit,
        seed=seed,
        eight_bits=eight_bits,
        carry_to=carry_to,
        pairs=pairs,
    )
    place = work or hidden_folder(bundle, "certify")
    with Progress("certifying") as bar:
        found = certify_data(
            bundle, data, request, on=ProviderSettings(**asdict(engine)), work=place, resize=resize,
            on_progress=bar.update,
        )  # fmt: skip
    write_results(out, found)
    write_report(out / "report.html", found)
    if card:
        write_card(bundle, found, engine.precision)
    if work is None:
        remove_work_folder(place)
    if shown.as_json:
        emit_json({**found.to_dict(), "out": str(out), "card": card})
    else:
        _print(found, out)


def _print(found: Certified, out: Path) -> None:
    from edgepure.cli.output import note, say, table

    for text in found.warnings():
        note(text)
    rows = [
        [
            c.name,
            f"{c.sigma:.4g}",
            *(f"{100 * c.share(r):.1f} %" for r in found.radii),
            str(c.abstained),
            f"{c.samples:.0f}",
        ]
        for c in found.curves
    ]
    columns = ["preset", "sigma", *(f"r = {r:g}" for r in found.radii), "abstained", "answers an image"]
    table(columns, rows, right=columns[1:])
    say(f"\nfolder: {out}")
