#!/usr/bin/env bash
# The steps of the Containerfile, one word each, so that they can be run and checked without it.
set -euo pipefail
# shellcheck source=deploy/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  packages) # build stage
    ensure_packages "${lorry_build_packages[@]}"
    check_swift
    ;;
  build)
    # With Swift's own libraries inside, the runtime stage needs no toolchain.
    run_logged build swift build "${lorry_build_flags[@]}" --static-swift-stdlib \
      --product lorry -j "$(nproc)"
    ;;
  collect) # DIR: everything that the runtime stage copies
    [ $# -eq 2 ] || fail "usage: container-build.sh collect DIR"
    cd "$lorry_root"
    binaries=$(swift build "${lorry_build_flags[@]}" --static-swift-stdlib --show-bin-path)
    install -D -m 755 -s "$binaries/lorry" "$2/usr/bin/lorry"
    install -D -m 755 deploy/container-health.sh "$2/usr/libexec/lorry/health"
    install -D -m 644 deploy/lorry.yaml "$2/usr/share/doc/lorry/lorry.yaml"
    mkdir -p "$2/usr/share/lorry"
    cp -R adapters/tales-5m adapters/tales "$2/usr/share/lorry/"
    ;;
  runtime-packages) # runtime stage
    ensure_packages "${lorry_runtime_packages[@]}"
    rm -rf /var/lib/apt/lists/*
    ;;
  verify) # DIR: the program runs, and needs no library that the runtime stage does not install
    [ $# -eq 2 ] || fail "usage: container-build.sh verify DIR"
    program=$2/usr/bin/lorry
    "$program" --help >/dev/null || fail "$program does not run"
    libraries=$(ldd "$program")
    if grep "not found" <<<"$libraries"; then
      fail "libraries are missing"
    fi
    if grep -E "libswift|libFoundation|libdispatch" <<<"$libraries"; then
      fail "Swift's own libraries should be linked statically"
    fi
    echo "container files: the program runs without Swift's libraries"
    ;;
  *)
    fail "usage: container-build.sh packages|build|collect DIR|runtime-packages|verify DIR"
    ;;
esac
