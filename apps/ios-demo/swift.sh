#!/usr/bin/env bash
# Swift, on a Mac or a Linux machine that has it, and otherwise from Debian 13's packages, in a folder of their own.
#
#     apps/ios-demo/swift.sh test            any command of `swift`, run on the package beside this script
#     apps/ios-demo/swift.sh --tool plutil -lint FILE    another tool of the toolchain; paths are relative to apps/ios-demo
#
# The packages (3.3 GB) are fetched once, as root, into EDGE_DISTIL_SWIFT, ~/.cache/edge-distil/swift where it is not
# set. Ends with 69 where there is no Swift and none can be had.
set -euo pipefail
package=$(cd "$(dirname "$0")" && pwd)
root=${EDGE_DISTIL_SWIFT:-$HOME/.cache/edge-distil/swift}

tool=swift
if [ "${1:-}" = --tool ]; then
  tool=$2
  shift 2
fi

if command -v "$tool" >/dev/null; then
  cd "$package"
  exec "$tool" "$@"
fi

unavailable() {
  echo "no Swift here: $1" >&2
  exit 69
}

if [ ! -e "$root/ready" ]; then
  [ "$(uname -s)" = Linux ] || unavailable "install Xcode or a toolchain"
  [ "$(id -u)" = 0 ] || unavailable "install a toolchain, or run this once as root, which fetches one"
  command -v apt-get >/dev/null || unavailable "install a toolchain: this is no Debian, whose packages would be fetched"
  {
    command -v debootstrap >/dev/null || { apt-get update && apt-get install --yes debootstrap; } ||
      unavailable "debootstrap cannot be installed"
    # What an interrupted fetch left is of no use.
    rm -rf "$root"
    mkdir -p "$(dirname "$root")"
    debootstrap --variant=minbase --include=swiftlang,swiftlang-dev,libc6-dev,libstdc++-14-dev,git trixie "$root" ||
      unavailable "debootstrap failed"
    touch "$root/ready"
  } >&2
fi
[ "$(id -u)" = 0 ] || unavailable "$root is entered with chroot, as root"

# Mounts of a namespace of its own are gone with it, and two of these can run at once.
export root package tool
exec unshare --mount --propagation private bash -euo pipefail -c '
  mkdir -p "$root/src"
  mount --bind "$package" "$root/src"
  mount --bind /proc "$root/proc"
  mount --bind /dev "$root/dev"
  exec chroot "$root" env --chdir=/src HOME=/root PATH=/usr/libexec/swift/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux "$tool" "$@"' bash "$@"
