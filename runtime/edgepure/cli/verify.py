"""``edgepure verify``: hashes and self-test vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from .guard import guard
from .options import BundleArgument, DebugOption, JsonOption, ProviderOption, ThreadsOption


@guard
def verify(
    bundle: BundleArgument,
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = None,
    graphs_only: Annotated[
        bool, typer.Option("--graphs-only", help="Leave out the whole purifications of the presets.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check that a bundle is whole and computes here what PyTorch computed at export.

    Checks the SHA-256 of every file, then runs the recorded self-test vectors: every graph, and the whole purification
    of the presets. Exit code 3 if the bundle is damaged, 6 if a result differs by more than its tolerance.

    Examples:

    \b
      edgepure verify digits
      edgepure verify digits --provider cuda --json
    """
    from ..errors import VerificationError
    from ..verification import verify as run
    from .output import emit_json, note, say, size, table, verdict
    from .progress import Progress

    with Progress("checking the hashes") as bar:
        found = run(
            bundle,
            provider,
            threads=threads,
            pipelines=not graphs_only,
            on_progress=lambda subject, share: bar.update(share, f"testing {subject}"),
        )
    if as_json:
        emit_json(found.to_json())
    else:
        say(f"{found.bundle}: {found.files} files, {size(found.bytes)}, all hashes match")
        table(
            ("what", "output", "max error", "mean error", "tolerance", "verdict"),
            (
                (
                    c.subject,
                    c.quantity,
                    f"{c.max_error:.2e}",
                    f"{c.mean_error:.2e}",
                    f"{c.tolerance:.2e}",
                    verdict(bool(c)),
                )
                for c in found.checks
            ),
            right=("max error", "mean error", "tolerance"),
        )
        for name in found.unrecorded:
            say(f"preset {name} has no recorded purification; only its graphs were checked")
        say(f"\n{found}")
    if not found:
        note(f"error: {found}; do not use this bundle with this engine")
        raise typer.Exit(VerificationError.exit_code)
