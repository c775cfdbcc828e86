#!/usr/bin/env bash
# Swift, on a Mac or a Linux machine that has it, and otherwise from Debian 13's packages, in a folder of their own.
#
#     apps/ios-demo/swift.sh test            any command of `swift`, run on the package beside this script
#     apps/ios-demo/swift.sh --tool plutil -lint -- FILE    another tool of the toolchain
#
# Paths are relative to apps/ios-demo.
#
# The packages (3.3 GB) are fetched once, as root, into EDGE_DISTIL_SWIFT, ~/.cache/edge-distil/swift where it is not
# set. Ends with 69 where there is no Swift and none can be had.
set -euo pipefail
package=$(cd "$(dirname "$0")" && pwd)
root=${EDGE_DISTIL_SWIFT:-$HOME/.cache/edge-distil/swift}

tool=swift
if [ "${1:-}" = --tool ]; then
  tool=${2:?--tool needs the name of a tool}
  shift 2
fi

# All tests are XCTest's, and the other library's "0 tests passed" would be the last line. Swift before 6.0 has no such
# option.
run() {
  if [ "$tool ${1:-}" = "swift test" ] && [[ $(swift test --help 2>&1) == *--disable-swift-testing* ]]; then
    shift
    set -- test --disable-swift-testing "$@"
  fi
  exec "$tool" "$@"
}

if command -v "$tool" >/dev/null; then
  cd "$package"
  run "$@"
fi

unavailable() {
  echo "no Swift here: $1" >&2
  exit 69
}

fetch() {
  command -v apt-get >/dev/null || unavailable "install a toolchain: this is no Debian, whose packages would be fetched"
  # Whatever is there is not ours to remove.
  [ ! -e "$root" ] || [ -z "$(ls -A "$root")" ] || unavailable "$root holds something else; remove it, or name another \
folder in EDGE_DISTIL_SWIFT"
  command -v debootstrap >/dev/null || { apt-get update && apt-get install --yes debootstrap; } ||
    unavailable "debootstrap cannot be installed"
  # Under another name until it is whole. What it mounts in there is gone with its namespace, also when it is killed.
  local partial=$root.partial
  rm -rf --one-file-system "$partial"
  if ! unshare --mount --propagation private debootstrap --variant=minbase \
    --include=swiftlang,swiftlang-dev,libc6-dev,libstdc++-14-dev,git trixie "$partial"; then
    rm -rf --one-file-system "$partial"
    unavailable "debootstrap failed"
  fi
  mkdir -p "$partial/src"
  touch "$partial/ready"
  mv -T "$partial" "$root"
}

if [ ! -e "$root/ready" ]; then
  [ "$(uname -s)" = Linux ] || unavailable "install Xcode or a toolchain"
fi
[ "$(id -u)" = 0 ] || unavailable "install a toolchain, or run this as root, which fetches and enters one in $root"
unshare --mount --propagation private true 2>/dev/null ||
  unavailable "this machine does not let root mount, as Debian's toolchain needs: install one"
if [ ! -e "$root/ready" ]; then
  mkdir -p "$(dirname "$root")" || unavailable "$root cannot be made"
  {
    flock 9 # of two at once the second waits, and finds what the first has fetched
    [ -e "$root/ready" ] || fetch >&2
  } 9>"$root.lock"
fi

# Mounts of a namespace of its own are gone with it, and two of these can run at once.
export root package tool
export -f run
exec unshare --mount --propagation private bash -euo pipefail -c '
  mkdir -p "$root/src"
  mount --bind "$package" "$root/src"
  mount --bind /proc "$root/proc"
  mount --bind /dev "$root/dev"
  exec chroot "$root" env --chdir=/src --unset=TMPDIR HOME=/root PATH=/usr/libexec/swift/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux bash -euc "run \"\$@\"" "$tool" "$@"' bash "$@"
