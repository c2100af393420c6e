#!/usr/bin/env bash
# The runtime on 64-bit Arm, emulated: makes a small Debian for arm64, installs edgepure's wheel there as docs/jetson.md
# says, runs the commands, the demo and tests of the runtime, and compares seeded purifications with this machine's.
#
#   sudo make test-arm64                         what tests.txt lists
#   sudo tests/arm64/run.sh tests/runtime/rows/test_noise.py -k integers      these tests instead (arguments of pytest)
#
#   ARM64_ROOT=DIR      keep the Debian there and use it again; otherwise it is removed at the end
#   ARM64_CPU=NAME      the processor to play. neoverse-n1, if not said: Armv8.2 with FP16 and dot products, as the
#                       Cortex-A78AE of a Jetson Orin. "max" has more, but its SVE makes it ten times slower
#   DEBIAN_MIRROR=URL   where debootstrap finds Debian, if not where it looks by itself
#
# No time that is measured there means anything: Python is about ten times slower than here, a network a hundred times.
set -euo pipefail

fail() {
    echo "test-arm64: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "needs root, for debootstrap, chroot and mounts: sudo make test-arm64"
for tool in debootstrap qemu-aarch64-static; do
    command -v $tool >/dev/null || fail "$tool is missing; Debian, Ubuntu: apt install debootstrap qemu-user-static"
done
# In a mount namespace of its own, no mount can be left behind.
[ -n "${ARM64_INSIDE:-}" ] || ARM64_INSIDE=1 exec unshare --mount --propagation private "$0" "$@"
cd "$(dirname "$0")/../.."
[ -x .venv/bin/python ] || fail "there is no .venv here; run \`make setup\` first"

WORK=$(mktemp -d /var/tmp/edgepure-arm64.XXXXXX)
ROOT=${ARM64_ROOT:-$WORK/root}
BINFMT=$WORK/binfmt_misc
RULE=edgepure-arm64-$$
clean_up() {
    [ ! -e "$BINFMT/$RULE" ] || echo -1 >"$BINFMT/$RULE"
    for folder in "$BINFMT" "$ROOT/dev" "$ROOT/sys" "$ROOT/proc"; do
        ! mountpoint --quiet "$folder" || umount --recursive --lazy "$folder"
    done
    # Never across a mount: behind one lies the machine's own /dev.
    rm -rf --one-file-system "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- Arm programs run under qemu: the kernel is told so, for as long as this script runs -----------------------------

mkdir "$BINFMT"
mount -t binfmt_misc none "$BINFMT" || fail "the kernel has no binfmt_misc; sudo modprobe binfmt_misc"
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
# F: the interpreter is opened now, so it need not be inside the root.
echo ":$RULE:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >"$BINFMT/register"

# ---- a Debian for arm64, and edgepure in it --------------------------------------------------------------------------

if [ ! -e "$ROOT/ready" ]; then
    debootstrap --arch=arm64 --variant=minbase --include=python3-venv bookworm "$ROOT" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    touch "$ROOT/ready"
fi
mount -t proc proc "$ROOT/proc"
mount --bind /sys "$ROOT/sys"
mount --bind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/dev/shm"
# qemu shows this machine's; ONNX Runtime and `edgepure doctor` read it to know the processor.
mount --bind tests/arm64/cpuinfo.txt "$ROOT/proc/cpuinfo"
cp /etc/resolv.conf "$ROOT/etc/resolv.conf"
mkdir -p "$ROOT/etc/ssl/certs" "$ROOT/work"
cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/" # what this machine trusts

inside() {
    echo "+ $*"
    env -i PATH=/venv/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LANG=C.UTF-8 \
        QEMU_CPU="${ARM64_CPU:-neoverse-n1}" OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 \
        EDGEPURE_TEST_TIMEOUT=3600 chroot "$ROOT" sh -c 'cd /work && exec "$@"' sh "$@"
}

rm -rf "$ROOT/work"
mkdir "$ROOT/work"
make --no-print-directory wheel DIST="$ROOT/work"
tar -c --exclude=__pycache__ -f - calibration docker docs export runtime samples benchmarks tests constraints.txt \
    pyproject.toml Makefile ./*.md | tar -x -C "$ROOT/work" -f -
wheel=$(cd "$ROOT/work" && echo edgepure-*.whl)
[ -x "$ROOT/venv/bin/pip" ] || inside python3 -m venv /venv
inside pip install --quiet "./$wheel[cpu]"
inside pip install --quiet --force-reinstall --no-deps "./$wheel" # where the root is used again
inside pip install --quiet --constraint constraints.txt cuda-bindings hypothesis onnx pytest scipy

# ---- what a user does, what the tests say, and the same seeds on both machines ---------------------------------------

inside python3 -c 'import platform, sys, numpy, onnxruntime as ort; assert platform.machine() == "aarch64"
print(sys.version.split()[0], "NumPy", numpy.__version__, "ONNX Runtime", ort.__version__)'
digits=/venv/lib/python3.11/site-packages/edgepure/demo/data/digits
inside edgepure doctor
inside edgepure inspect $digits
inside edgepure verify $digits
inside edgepure plan $digits --preset heterogeneous
inside python3 -c 'from edgepure.demo import demo_images; from edgepure.images import save_image
save_image(demo_images().adversarial[0], "attacked.png")'
inside edgepure classify $digits attacked.png --preset uniform
inside edgepure purify $digits attacked.png --preset uniform --output purified
inside edgepure demo --preset uniform --out demo
inside edgepure bench $digits --preset uniform --batch 1 --repeats 1

.venv/bin/python tests/arm64/parity.py make "$ROOT/work/here.npz"
inside python3 tests/arm64/parity.py make arm64.npz
.venv/bin/python tests/arm64/parity.py compare "$ROOT/work/here.npz" "$ROOT/work/arm64.npz"

if [ $# = 0 ]; then
    mapfile -t chosen < <(grep -v '^#' tests/arm64/tests.txt)
    set -- "${chosen[@]}"
fi
inside python3 -m pytest -q -p no:cacheprovider "$@"
