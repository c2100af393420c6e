"""The processor's name and features, from /proc/cpuinfo as different machines write it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgepure.machine import processor

#: Of a Cortex-A78AE.
ORIN = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat"
XEON = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu avx2 fma sse4_2\n\n"


def arm(part: str, *, implementer: str = "0x41", name: str = "", features: str = ORIN) -> str:
    """One processor's paragraph."""
    model = f"model name\t: {name}\n" if name else ""
    return (
        f"processor\t: 0\n{model}BogoMIPS\t: 62.50\nFeatures\t: {features}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 1\n\n"
    )


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (XEON * 2, "Intel(R) Xeon(R) Processor"),
        (arm("0xd42", name="ARMv8 Processor rev 1 (v8l)") * 12, "Cortex-A78AE"),
        (arm("0xd42") * 8, "Cortex-A78AE"),
        (arm("0xd83") * 14, "Neoverse-V3AE"),
        (arm("0xd05") * 4 + arm("0xd0b") * 4, "Cortex-A55 + Cortex-A76"),
        (arm("0xfff") * 2, "Arm core 0xfff"),
        (arm("0x004", implementer="0x4e", name="ARMv8 Processor rev 0 (v8l)"), "ARMv8 Processor rev 0 (v8l)"),
        (arm("0x001", implementer="0xc0"), "aarch64"),
        ("processor\t: 0\nmodel name\t: \n\nHardware\t: BCM2835\n", "BCM2835"),
        ("", "aarch64"),
    ],
)
def test_the_name(text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", str(tmp_path / "cpuinfo"))
    assert processor.cpu_name() == name


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (XEON, ("sse4_2", "avx2", "fma")),
        (arm("0xd42"), ("asimd", "asimdhp", "asimddp")),
        (arm("0xd83", features=f"{ORIN} sve i8mm bf16"), ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve")),
        ("", ()),
    ],
)
def test_the_features(text: str, features: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", str(tmp_path / "cpuinfo"))
    assert processor.cpu_features() == features


def test_a_system_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", str(tmp_path / "nothing"))
    assert (processor.cpu_name(), processor.cpu_features()) == ("aarch64", ())
